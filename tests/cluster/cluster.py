# SPDX-License-Identifier: Apache-2.0
"""The project's own cluster: two nodes on one machine, and what changes its world.

One at a time on a machine. `host.py` is the inside; here is what people and
tests do with it from outside.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.lab import netperf
from agent.lab.netns import Namespace, wait_until
from agent.lab.programs import require
from agent.snapshot.experiment import Netperf
from tests.cluster import cgroups, image, nodes
from tests.cluster.host import BRIDGE
from tests.cluster.processes import WITH_US, find
from tests.sources.agent import pod_name

HERE = Path(__file__).parent
CACHE = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    / "bigtcp-agent/cluster"
)
STATE = CACHE / "up"  # of the cluster that is up: kubeconfig, logs
BIG, LEGACY = 196_608, 65_536
_SECONDS = 180  # in which whatever was asked of Kubernetes must have happened


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up."""

    host: Namespace
    nodes: tuple[nodes.Node, ...]
    kubeconfig: Path = STATE / "kubeconfig"

    def run_kubectl(
        self, *argv: str, text: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl as admin, whatever becomes of it."""
        return subprocess.run(
            [CACHE / "bin/kubectl", f"--kubeconfig={self.kubeconfig}", *argv],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS + 60,
        )

    def kubectl(self, *argv: str, text: str | None = None) -> str:
        """Run kubectl as admin; what it printed."""
        done = self.run_kubectl(*argv, text=text)
        if done.returncode:
            raise AgentError(
                f"kubectl {' '.join(argv)}: {done.stderr.strip()}",
                f"see the logs in {STATE / 'log'}",
            )
        return done.stdout

    def configure_cilium(self, **settings: str) -> None:
        """Change the ConfigMap cilium-config, which alone changes nothing else.

        Keys are written with underscores: enable_ipv4_big_tcp="true".
        """
        data = {key.replace("_", "-"): value for key, value in settings.items()}
        self.kubectl(
            *("--namespace=kube-system", "patch", "configmap", "cilium-config"),
            *("--type=merge", f"--patch={json.dumps({'data': data})}"),
        )

    def restart_cilium(self) -> None:
        """As a user does after a change of the ConfigMap."""
        self._restart("--namespace=kube-system", "daemonset/cilium")

    def restart_pods(self) -> None:
        """New netperf pods: they get the sizes that Cilium has now."""
        self._restart("deployment/netperf-client", "deployment/netperf-server")
        names = "--output=jsonpath={.items[*].metadata.name}"

        def old_ones_are_gone() -> bool:
            pods = self.kubectl("get", "pods", names).split()
            pods_in_default = {f"default/{pod}" for pod in pods}
            endpoints = [
                each for node in self.nodes for each in node.cilium("endpoint")
            ]
            return {pod_name(each) for each in endpoints} == pods_in_default

        wait_until(old_ones_are_gone, "the old pods to be gone", _SECONDS)

    def _restart(self, *what: str) -> None:
        self.kubectl("rollout", "restart", *what)
        self.rolled_out(*what)

    def rolled_out(self, *what: str) -> None:
        """Wait until all pods of these are new and ready."""
        flags = [word for word in what if word.startswith("--")]
        for name in set(what) - set(flags):
            limit = f"--timeout={_SECONDS}s"
            self.kubectl("rollout", "status", *flags, name, limit)

    def set_bridge(self, size: int) -> None:
        """Size limits of the bridge between the nodes and of its ports."""
        for device in (BRIDGE, *(node.name for node in self.nodes)):
            self.host.set_sizes(device, size)

    def load(self, archive: Path) -> None:
        """Give the nodes an image (`podman save`); use imagePullPolicy: Never."""
        ctr = ("ctr", "--namespace=k8s.io", "images", "import")
        for node in self.nodes:
            node.run(str(CACHE / "bin" / ctr[0]), *ctr[1:], str(archive.absolute()))

    def pod_addresses(self, app: str) -> dict[str, str]:
        """Addresses of the pod of a deployment of ours, by family."""
        said = self.kubectl("get", "pods", f"--selector=app={app}", "--output=json")
        pods = [
            pod
            for pod in json.loads(said)["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]
        assert len(pods) == 1, f"{len(pods)} pods of {app}"
        found = [entry["ip"] for entry in pods[0]["status"]["podIPs"]]
        return {"ipv6" if ":" in ip else "ipv4": ip for ip in found}

    def netperf(self, family: str, seconds: int = 1) -> Netperf:
        """The lab's TCP_RR of 80,000 bytes, from pod to pod and node to node.

        Whole seconds: netperf takes 0.5 for 0, and 0 for ever.
        """
        to = self.pod_addresses("netperf-server")[family]
        argv = netperf.tcp_rr_command(to, seconds)
        return netperf.parse(
            self.kubectl("exec", "deployment/netperf-client", "--", *argv)
        )


def up(*, with_us: bool) -> "subprocess.Popen[bytes]":
    """Bring a cluster up; one that was there is taken down first.

    Returns the process that holds it. `with_us`: it dies with this process, also by
    SIGKILL.
    """
    if is_up():
        print("cluster: taking down the one that is up", file=sys.stderr)
    down()
    if os.geteuid():
        raise AgentError("a cluster needs root", "use sudo, or `make cluster`")
    (STATE / "log").mkdir(parents=True)
    (STATE / "images").mkdir()
    programs = CACHE / "bin"
    require("netperf", "netserver")
    tools = [Path(str(shutil.which(name))) for name in ("netperf", "netserver")]
    applets = {f"bin/{name}": "busybox" for name in ("sh", "sleep", "cat", "ls", "ip")}
    image.write(
        STATE / "images/netperf.tar",
        image.PODS,
        [programs / "busybox", *tools],
        applets,
    )
    image.write(
        STATE / "images/cilium.tar", image.CILIUM, [programs / "cilium-node"], {}
    )
    try:
        host = _start_host(programs, with_us=with_us)
        with attached() as cluster:
            for manifest in ("operator", "cilium", "netperf"):
                cluster.kubectl("apply", f"--filename={HERE}/manifests/{manifest}.yaml")
            cluster.rolled_out("--namespace=kube-system", "daemonset/cilium")
            cluster.rolled_out("deployment/netperf-client", "deployment/netperf-server")
    except BaseException:
        _end()
        raise
    return host


def _start_host(programs: Path, *, with_us: bool) -> "subprocess.Popen[bytes]":
    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    reading, writing = os.pipe()
    with (STATE / "log/host.log").open("wb") as log:
        host = subprocess.Popen(
            [
                *(WITH_US if with_us else ()),
                *("unshare", "--pid", "--net", "--mount", "--fork", "--kill-child"),
                *("--mount-proc", sys.executable, "-m", "tests.cluster.host"),
                *(str(programs), str(STATE), f"/proc/1/fd/{ours}", str(writing)),
            ],
            cwd=HERE.parent.parent,
            pass_fds=(ours, writing),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    os.close(writing)
    os.close(ours)
    with os.fdopen(reading) as pipe:
        if pipe.readline():
            return host
    host.kill()
    host.wait()
    raise AgentError(
        f"the cluster did not start: {(STATE / 'log/host.log').read_text()[-2000:]}",
        f"see the logs in {STATE / 'log'}",
    )


def is_up() -> bool:
    """Whether there is one, be it half."""
    return bool(_processes())


@contextlib.contextmanager
def attached() -> Iterator[Cluster]:
    """The cluster that is up. AgentError where none is."""
    with contextlib.ExitStack() as stack:
        visited = tuple(nodes.attach(number) for number in nodes.NUMBERS)
        enter = ("nsenter", f"--target={_processes()[-1]}", "--net")
        holder = subprocess.Popen([*WITH_US, *enter, "sleep", "infinity"])
        host = Namespace("host", holder)
        for namespace in (host, *visited):
            stack.callback(namespace.close)
        ours = os.stat("/proc/self/ns/net").st_ino
        wait_until(lambda: host.inode != ours, "the host's namespace")
        yield Cluster(host, visited)


def _processes() -> list[int]:
    """The host's first process and, before it, the one that ends it with itself."""
    return find("tests.cluster.host")


def down() -> None:
    """Leave nothing of a cluster, however it ended."""
    _end()
    shutil.rmtree(STATE, ignore_errors=True)


def _end() -> None:
    """Kill its first process, which takes all; logs stay for who wants to know why."""

    def ended() -> bool:
        left = _processes()  # again and again: one may be about to be what it is
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    wait_until(ended, "the cluster's processes to end", _SECONDS)
    # The kernel takes its time with network namespaces; this end takes the other.
    subprocess.run(
        ["ip", "link", "del", cgroups.NAME], capture_output=True, check=False
    )
    cgroups.remove()


def remains() -> list[str]:
    """What is there of a cluster; nothing after `down`."""
    device = Path("/sys/class/net") / cgroups.NAME
    return [
        *(f"process {pid}" for pid in _processes()),
        *(f"cgroup {folder}" for folder in cgroups.left()),
        *(str(path) for path in (device, STATE) if path.exists()),
    ]
