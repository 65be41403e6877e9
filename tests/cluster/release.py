# SPDX-License-Identifier: Apache-2.0
"""The chart installed on the cluster, by Helm, with the images of the Dockerfile."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agent.errors import AgentError
from agent.lab.netns import wait_until
from tests.chart import helm
from tests.cluster.cluster import Cluster
from tests.cluster.processes import find
from tests.process import bpf_programs, programs_of

NAMESPACE = "agents"
NAME = "bigtcp-agent"
HOOKS = 3  # and so many programs has each agent
# Where the distribution's python3 runs the agent in the image.
_COMMAND = ("/opt/bigtcp-agent/bin/bigtcp-agent", "run")
# Kubernetes makes and drops these when it likes.
_PASSING = {"events", "events.events.k8s.io", "leases.coordination.k8s.io"}

# Of others, these get new names when a test restarts Cilium or netperf.
_RENEWED = {"Pod", "ReplicaSet", "ControllerRevision"}


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
        self.run(verb, str(helm.CHART), "--wait", "--timeout=180s", *flags)

    def rolled_out(self) -> None:
        """Wait until all agents are new and ready: not every Helm does."""
        self.cluster.rolled_out(f"--namespace={NAMESPACE}", f"daemonset/{NAME}")

    def uninstall(self) -> None:
        self.run("uninstall", "--wait", "--timeout=180s")

    def kubectl(self, *argv: str, text: str | None = None) -> str:
        """In the namespace of the release."""
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *argv, text=text)

    def pods(self, component: str = "agent") -> dict[str, Any]:
        """Its pods that have a node and are not about to end, by node."""
        selector = f"--selector=app.kubernetes.io/component={component}"
        said = self.kubectl("get", "pods", selector, "--output=json")
        return {
            pod["spec"]["nodeName"]: pod
            for pod in json.loads(said)["items"]
            if "deletionTimestamp" not in pod["metadata"] and "nodeName" in pod["spec"]
        }

    def check(self, node: str, *flags: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of `check`, in the agent's pod on a node."""
        return self.ask(node, "check", *flags)

    def ask(self, node: str, command: str, *flags: str) -> tuple[int, dict[str, Any]]:
        """The same of any command that answers with an object."""
        done = self._exec(node, "bigtcp-agent", command, "--output=json", *flags)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def who_checks(self, node: str) -> str:
        """Whom `check` asks, by its text."""
        said = self._exec(node, "bigtcp-agent", "check").stdout
        found = re.search(
            r"as\s+seen\s+by\n(.+)", said
        )  # a long kernel's name wraps it
        assert found, said
        return found[1]

    def _exec(self, node: str, *argv: str) -> "subprocess.CompletedProcess[str]":
        pod = self.pods()[node]["metadata"]["name"]
        return self.cluster.run_kubectl(
            f"--namespace={NAMESPACE}", "exec", pod, "--", *argv
        )


@contextlib.contextmanager
def installed(cluster: Cluster, version: str, *flags: str) -> Iterator[Release]:
    """A release in a namespace of its own; at the end nothing of it is left."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    try:
        before = wait_until(lambda: _settled(cluster), "the namespace to be settled")
        made = Release(cluster, version)
        made.apply("install", *flags)
        made.rolled_out()  # Helm 3 is content with one of two
        yield made
        made.rolled_out()  # whatever was the last to end one
        held = set().union(*map(programs_of, processes()))
        assert len(held) == HOOKS * len(cluster.nodes)
        made.uninstall()
        with contextlib.suppress(AgentError):
            wait_until(lambda: objects(cluster) == before, "all to be gone")
        assert objects(cluster) == before  # which shows what differs
        wait_until(lambda: not processes(), "the agents to be gone")
        wait_until(lambda: not held & bpf_programs(), "their programs to be gone")
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE)


def _settled(cluster: Cluster) -> set[str]:
    """All objects, once a new namespace has what Kubernetes puts there."""
    found = objects(cluster)
    wanted = {
        f"ConfigMap {NAMESPACE} kube-root-ca.crt",
        f"ServiceAccount {NAMESPACE} default",
    }
    return found if wanted <= found else set()


def processes() -> list[int]:
    """Of all agents that run in the image, as the machine numbers them."""
    return find(*_COMMAND)


def ready(release: Release, node: str) -> dict[str, Any] | None:
    """Status of the container on a node, when its pod is ready."""
    pod = release.pods().get(node)
    conditions = pod["status"].get("conditions", []) if pod else []
    if not any(x["type"] == "Ready" and x["status"] == "True" for x in conditions):
        return None
    assert pod
    (container,) = pod["status"]["containerStatuses"]
    found: dict[str, Any] = container
    return found


def process_on(release: Release, node: str) -> int:
    """Of a node's agent."""
    (status,) = release.pods()[node]["status"]["containerStatuses"]
    container = status["containerID"].rpartition("/")[2]
    (pid,) = (pid for pid in processes() if container in _text(f"/proc/{pid}/cgroup"))
    return pid


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
    found = {tuple(line.split()) for line in said.splitlines()}
    return {
        " ".join(each)
        for each in found
        if each[0] not in _RENEWED or each[1] == NAMESPACE
    }


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""
