# SPDX-License-Identifier: Apache-2.0
"""The chart installed on the cluster, by Helm, with the images of the Dockerfile."""

import json
import os
import signal
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chart import helm
from tests.cluster.cluster import CACHE, Cluster
from tests.cluster.processes import find

NAMESPACE = "agents"
NAME = "bigtcp-agent"
# Where the distribution's python3 runs the agent in the image.
_COMMAND = ("/opt/bigtcp-agent/bin/bigtcp-agent", "run")
# Kubernetes makes and drops these when it likes.
_PASSING = {"events", "events.events.k8s.io", "leases.coordination.k8s.io"}


def load_images(cluster: Cluster) -> None:
    """Give both nodes what `make image` has built."""
    for target in ("agent", "netperf"):
        archive = CACHE.parent / f"image/{target}.tar"
        if not archive.exists():
            pytest.fail(f"{archive} is missing: make image")
        cluster.load(archive)


@dataclass(frozen=True)
class Release:
    """The release `bigtcp-agent` in namespace `agents`, in the hands of one Helm."""

    cluster: Cluster
    helm: str

    def run(self, verb: str, *argv: str) -> str:
        """A command of Helm's on this release; what it printed."""
        done = helm.run(
            *(self.helm, verb, NAME, *argv, f"--namespace={NAMESPACE}"),
            f"--kubeconfig={self.cluster.kubeconfig}",
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, verb: str, *flags: str) -> None:
        """install or upgrade, until the agents are ready."""
        self.run(verb, str(helm.CHART), "--wait", "--timeout=90s", *flags)

    def uninstall(self) -> None:
        self.run("uninstall", "--wait", "--timeout=60s")

    def kubectl(self, *argv: str, text: str | None = None) -> str:
        """In the namespace of the release."""
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *argv, text=text)

    def pods(self, component: str = "agent") -> dict[str, Any]:
        """Its pods that are not about to end, by node."""
        selector = f"--selector=app.kubernetes.io/component={component}"
        said = self.kubectl("get", "pods", selector, "--output=json")
        return {
            pod["spec"]["nodeName"]: pod
            for pod in json.loads(said)["items"]
            if "deletionTimestamp" not in pod["metadata"]
        }

    def check(self, node: str, *flags: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of `check`, in the agent's pod on a node."""
        pod = self.pods()[node]["metadata"]["name"]
        done = self.cluster.run_kubectl(
            *(f"--namespace={NAMESPACE}", "exec", pod, "--"),
            *("bigtcp-agent", "check", "--output=json", *flags),
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


def processes() -> list[int]:
    """Of all agents that run in the image, as the machine numbers them."""
    return find(*_COMMAND)


def process_on(release: Release, node: str) -> int:
    """Of a node's agent."""
    (status,) = release.pods()[node]["status"]["containerStatuses"]
    container = status["containerID"].rpartition("/")[2]
    (pid,) = (pid for pid in processes() if container in _text(f"/proc/{pid}/cgroup"))
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def programs(pid: int) -> set[int]:
    """Ids of the BPF programs that a process holds by its links."""
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fdinfo"):
        for line in _text(entry.path).splitlines():
            if line.startswith("prog_id:"):
                found.add(int(line.split()[1]))
    return found


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = _text(f"/proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (x.partition(":") for x in lines)}


def objects(cluster: Cluster) -> set[str]:
    """All there are on the API server, but those that come and go."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--output=name").split()
    lasting = ",".join(sorted(set(kinds) - _PASSING))
    columns = "KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name"
    said = cluster.kubectl(
        *("get", lasting, "--all-namespaces", "--no-headers"),
        f"--output=custom-columns={columns}",
    )
    return {" ".join(line.split()) for line in said.splitlines()}


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
