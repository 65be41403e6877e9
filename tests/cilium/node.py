# SPDX-License-Identifier: Apache-2.0
"""One node that Cilium's own agent runs on, with two pods wired by Cilium's own CNI
plugin: no stand-in but for the kubelet.

    outside --eth0-- node: agent, etcd, kube-apiserver --lxc*-- p1, p2

The node is a network, a mount and a cgroup namespace of one kernel. That keeps the
agent from the machine's own devices, sysctls, cgroups, bpffs and iptables:

- its root file system is an overlay in memory, with a /run, a /tmp and a bpffs of its
  own: what it pins is gone with the node;
- its cgroup namespace begins at a cgroup of its own: its socket load balancer hooks
  the root that it sees;
- /proc/sys/kernel, fs, vm are read-only: they belong to the whole machine, and
  kernel.unprivileged_bpf_disabled=1, which the agent writes, cannot be taken back.

All processes end with this one, also by SIGKILL, and the namespaces with them.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.lab import netperf
from agent.lab.netns import Namespace, namespaces, veth, wait_until, with_us
from tests.cluster_api.server import ApiServer

HERE = Path(__file__).parent
NODE = "node1"
PODS = ("p1", "p2")
NATIVE = "eth0"  # the node's device
OFF = {"enable-ipv4-big-tcp": "false", "enable-ipv6-big-tcp": "false"}
ON = {"enable-ipv4-big-tcp": "true", "enable-ipv6-big-tcp": "true"}
_READY_SECONDS = 120.0  # for what takes 2 s on a machine that is idle

# What Helm writes for native routing in eBPF, as BIG TCP wants it, without what a
# node by itself does not need: Hubble, Envoy, health checks between nodes. Sizes of
# maps would otherwise depend on the machine's memory.
SETTINGS = {
    "agent-not-ready-taint-key": "node.cilium.io/agent-not-ready",
    "auto-direct-node-routes": "true",
    "bpf-ct-global-any-max": "65536",
    "bpf-ct-global-tcp-max": "65536",
    "bpf-map-dynamic-size-ratio": "0.0",
    "bpf-nat-global-max": "65536",
    "bpf-neigh-global-max": "65536",
    "bpf-sock-rev-map-max": "65536",
    "cgroup-root": "/run/cilium/cgroupv2",
    "cluster-name": "default",
    "cni-exclusive": "false",
    "devices": NATIVE,
    "enable-bpf-masquerade": "true",
    "enable-endpoint-health-checking": "false",
    "enable-health-checking": "false",
    "enable-host-legacy-routing": "false",
    "enable-hubble": "false",
    "enable-ipv4": "true",
    "enable-ipv4-masquerade": "true",
    "enable-ipv6": "true",
    "enable-ipv6-masquerade": "true",
    "enable-l7-proxy": "false",
    "identity-allocation-mode": "crd",
    "ipam": "kubernetes",
    "ipv4-native-routing-cidr": "10.244.0.0/16",
    "ipv6-native-routing-cidr": "fd00:244::/32",
    "k8s-kubeconfig-path": "/etc/kubeconfig",
    "k8s-require-ipv4-pod-cidr": "true",
    "k8s-require-ipv6-pod-cidr": "true",
    "kube-proxy-replacement": "true",
    "routing-mode": "native",
    **OFF,
}
_CONFIG_MAP = "/tmp/cilium/config-map"  # noqa: S108, Helm's place, in the node's own /tmp

# $1 the root file system, $2 a folder for what is written, in memory, $3 a layer with
# Cilium's files, $4 the node's /run/cilium, which is read from outside, too.
_ENTER = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$3:$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount -t proc proc proc
for shared in kernel fs vm; do
    mount --bind "proc/sys/$shared" "proc/sys/$shared"
    mount -o remount,bind,ro "proc/sys/$shared"
done
mount -t sysfs sys sys
mount -t bpf bpf sys/fs/bpf
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p run/cilium run/lock run/netns run/xtables tmp/cilium/config-map
mount --bind "$4" run/cilium
mkdir -p run/cilium/cgroupv2
mount -t cgroup2 cgroup2 run/cilium/cgroupv2
if [ ! -e proc/modules ]; then # see _copy_agent()
    : >run/modules
    built_in=lib/modules/$(uname -r)
    mkdir -p "$built_in"
    for family in ip ip6; do
        printf 'kernel/%s.ko\n' ${family}_tables ${family}table_{nat,mangle,raw,filter}
    done >"$built_in/modules.builtin"
fi
exec chroot . sleep infinity
"""


def _cgroup2() -> Path:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 ") and before.split()[3] == "/":
            return Path(before.split()[4])
    raise AgentError("cgroup v2 is not mounted", "mount -t cgroup2 cgroup2 /mnt")


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """A new cgroup, removed at the end with the processes in it, such as those that the
    agent has started; after SIGKILL, too, by a process that waits for our end of a pipe
    to close.
    """
    folder = _cgroup2() / f"bigtcp-cilium-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    remove = (
        'read _; echo 1 >"$0/cgroup.kill"; '
        'for try in $(seq 300); do rmdir "$0" && exit; sleep 0.1; done'
    )
    with subprocess.Popen(
        ["bash", "-c", remove, str(folder)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is not for it
    ):
        yield folder
    if folder.exists():
        raise AgentError(f"{folder} is left", "see its cgroup.procs")


def unix_get(path: Path, url: str, seconds: float = 30.0) -> Any:
    """The JSON that a server on a unix socket answers; OSError where it does not."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(seconds)
    with contextlib.closing(connection):
        connection.sock.connect(str(path))
        connection.request("GET", url)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise OSError(f"{url}: {response.status} {text[:200]!r}")
        return json.loads(text)


@dataclass(eq=False)
class Pod(Namespace):
    """A pod's network namespace and what Cilium's CNI plugin gave it."""

    addresses: dict[str, str] = field(default_factory=dict)  # by family


@dataclass(frozen=True)
class Ended:
    """How an agent's process ended by itself."""

    code: int
    log: str  # all that it wrote


@dataclass(eq=False)
class CiliumNode:
    """The node; made by `cilium_node`."""

    version: str
    programs: Path  # what tests/cilium/build printed
    folder: Path
    namespace: Namespace
    holder: subprocess.Popen[bytes]
    cgroup: Path
    api: ApiServer
    settings: dict[str, str]
    pods: dict[str, Pod] = field(default_factory=dict)
    _agent: subprocess.Popen[bytes] | None = None
    _started: str = ""
    _restarts: int = 0
    _pods: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def root(self) -> Path:
        """Its file system, seen from outside."""
        return Path(f"/proc/{self.holder.pid}/root")

    @property
    def socket(self) -> Path:
        """Where its agent listens, for --cilium-socket: not below /proc/PID/root, which
        takes a capability that bigtcp-agent gives away.
        """
        return self.folder / "run/cilium.sock"

    @property
    def log(self) -> str:
        """What the agent has written since it was started last."""
        return (self.folder / "agent.log").read_text(errors="replace")

    # --- what an administrator does

    def configure(self, **settings: str) -> None:
        """Change the ConfigMap cilium-config; the agent reads it when it starts.

        Names have "_" for "-": configure(enable_ipv4_big_tcp="true").
        """
        self.settings |= {key.replace("_", "-"): v for key, v in settings.items()}
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cilium-config", "namespace": "kube-system"},
            "data": self.settings,
        }
        self.api.kubectl("apply -f -", manifest=manifest)

    def start(self) -> None:
        """Start the agent, and wait until it is ready and has restored its pods.

        AgentError, with the end of its log, where it ends instead.
        """
        self.launch()
        self.wait_ready()
        self.write_pod_status()

    def wait_ready(self) -> None:
        """Wait until the agent is ready and has restored its pods."""
        wait_until(self._ready, "Cilium's agent to be ready", _READY_SECONDS)

    def launch(self) -> None:
        """Start the agent, with the ConfigMap as it is now, and do not wait."""
        assert self._agent is None
        folder = self.root / _CONFIG_MAP.lstrip("/")
        for old in folder.iterdir():
            old.unlink()
        for key, value in self.settings.items():
            (folder / key).write_text(value)
        self._started = _now()
        with (self.folder / "agent.log").open("wb") as log:
            self._agent = subprocess.Popen(
                self._command("cilium-agent", f"--config-dir={_CONFIG_MAP}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_for_end(self, seconds: float = _READY_SECONDS) -> Ended:
        """Wait until the agent has ended by itself, as one does that refuses what it
        is asked for; the API server then has its pod as a kubelet reports it.
        """
        assert self._agent
        code = self._agent.wait(seconds)
        ended = Ended(code, self.log)
        self._agent = None
        self._restarts += 1
        self.write_pod_status(ended)
        return ended

    def stop(self) -> None:
        """End the agent by SIGTERM, as a kubelet does, then by SIGKILL."""
        if self._agent is None:
            return
        self._agent.terminate()
        try:
            self._agent.wait(30)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        self._agent = None

    def restart(self) -> None:
        """As `kubectl rollout restart ds/cilium` does."""
        self.stop()
        self.start()

    def start_pods(self) -> None:
        """New pods p1 and p2, each with a netserver; ready at the end."""
        assert not self.pods
        for name in PODS:
            (made,) = self._pods.enter_context(namespaces(name))
            pod = Pod(made.name, made.holder, made.processes)
            result = json.loads(self._cni("ADD", pod))
            pod.addresses = {
                "ipv6" if ":" in at["address"] else "ipv4": at["address"].split("/")[0]
                for at in result["ips"]
            }
            self.pods[name] = pod
        wait_until(self._ready, "the pods to be ready", _READY_SECONDS)
        for pod in self.pods.values():
            netperf.serve(pod, cpu=0)

    def delete_pods(self) -> None:
        """As `kubectl delete pod` does."""
        for pod in self.pods.values():
            self._cni("DEL", pod)
        self._pods.close()
        self.pods.clear()

    def traffic(self, seconds: int = 2) -> dict[str, float]:
        """TCP_RR of 80,000 bytes from p1 to p2: transactions a second by family."""
        client, server = (self.pods[name] for name in PODS)
        return {
            family: netperf.tcp_rr(client, address, 0, seconds).transactions_per_second
            for family, address in server.addresses.items()
        }

    # --- what the agent says

    def ask(self, url: str) -> Any:
        """An answer of the agent's API, such as /v1/healthz; OSError without one."""
        return unix_get(self.socket, url)

    def state_files(self) -> Path:
        """The folder with the runtime configuration and a folder for each endpoint."""
        return self.folder / "run/state"

    def _ready(self) -> bool:
        if self._agent is None or self._agent.poll() is not None:
            code = self._agent.returncode if self._agent else None
            self._agent = None
            raise AgentError(f"Cilium's agent ended, code {code}", self.log[-2000:])
        try:
            health, endpoints = self.ask("/v1/healthz"), self.ask("/v1/endpoint")
        except OSError:
            return False
        if health["cilium"]["state"] != "Ok":
            return False
        states = [each["status"]["state"] for each in endpoints]
        return len(states) > len(self.pods) and set(states) == {"ready"}

    # --- what stands in for a kubelet

    def write_pod_status(self, ended: Ended | None = None) -> None:
        """Write the agent's Pod as a kubelet writes it: one that runs, or, with
        `ended`, one that waits to be started again.

        Cilium's chart sets terminationMessagePolicy FallbackToLogsOnError for it, and
        the agent writes no /dev/termination-log, so the message is the end of its log:
        at most 80 lines and 2,048 bytes (MaxContainerTerminationMessageLogLines and
        -LogLength of pkg/kubelet/container/runtime.go).
        """
        container: dict[str, Any] = {
            "name": "cilium-agent",
            "image": f"quay.io/cilium/cilium:v{self.version}",
            "imageID": "",
            "restartCount": self._restarts,
        }
        if ended:
            code, signal = (128 - ended.code, -ended.code) if ended.code < 0 else (0, 0)
            container |= {
                "ready": False,
                "started": False,
                "state": {
                    "waiting": {
                        "reason": "CrashLoopBackOff",
                        "message": "back-off 10s restarting failed "
                        "container=cilium-agent pod=cilium-node1_kube-system",
                    }
                },
                "lastState": {
                    "terminated": {
                        "exitCode": code or ended.code,
                        **({"signal": signal} if signal else {}),
                        "reason": "Error",
                        "message": termination_message(ended.log),
                        "startedAt": self._started,
                        "finishedAt": _now(),
                        "containerID": f"containerd://{self._restarts:064x}",
                    }
                },
            }
        else:
            container |= {
                "ready": True,
                "started": True,
                "state": {"running": {"startedAt": self._started}},
            }
        status = {"phase": "Running", "containerStatuses": [container]}
        self.api.kubectl(
            "-n kube-system patch pod cilium-node1",
            *("--subresource=status", "--type=merge", "-p"),
            json.dumps({"status": status}),
        )

    # --- how it is made

    def _command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` on the node and ends when we end."""
        enter = (
            *("nsenter", f"--target={self.holder.pid}", "--net", "--mount"),
            *("--cgroup", "--root", "--wd", "env", "-i", "HOME=/root"),
            "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            *(f"K8S_NODE_NAME={NODE}", "CILIUM_K8S_NAMESPACE=kube-system"),
        )
        join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        return with_us("sh", "-c", join, str(self.cgroup), *enter, *argv)

    def run(self, *argv: str, text: str = "") -> str:
        """Run on the node to the end; what it printed. AgentError where it fails."""
        done = subprocess.run(
            self._command(*argv),
            input=text,
            capture_output=True,
            text=True,
            timeout=_READY_SECONDS,
            check=False,
        )
        if done.returncode:
            said = done.stdout + done.stderr
            raise AgentError(f"{argv[0]} failed, code {done.returncode}", said[-2000:])
        return done.stdout

    def _cni(self, command: str, pod: Pod) -> str:
        config = {
            "cniVersion": "0.3.1",
            "name": "cilium",
            "type": "cilium-cni",
            "log-file": "/tmp/cilium-cni.log",  # noqa: S108
        }
        arguments = f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name}"
        return self.run(
            "env",
            f"CNI_COMMAND={command}",
            f"CNI_CONTAINERID={pod.name}-{pod.holder.pid}",
            f"CNI_NETNS={pod.path}",
            "CNI_IFNAME=eth0",
            "CNI_PATH=/usr/local/bin",
            f"CNI_ARGS=IgnoreUnknown=1;{arguments}",
            "cilium-cni",
            text=json.dumps(config),
        )

    def create_objects(self) -> None:
        """What the API server of a cluster with this node and these pods has."""
        crds = self.programs / "source/pkg/k8s/apis/cilium.io/client/crds"
        self.api.kubectl(f"create -f {crds}/v2 -f {crds}/v2alpha1")
        self.api.kubectl("create -f -", manifest={"kind": "List", **_objects()})
        addresses = ("InternalIP", "198.18.77.11"), ("InternalIP", "fd00:77::11")
        status = {
            "addresses": [
                {"type": kind, "address": address} for kind, address in addresses
            ]
        }
        self.api.kubectl(
            f"patch node {NODE} --subresource=status --type=merge -p",
            json.dumps({"status": status}),
        )
        self.configure()
        config = self.api.kubeconfig("admin").read_text()
        certificate = self.api.folder / "certs/apiserver.crt"
        (self.root / "etc/apiserver.crt").write_bytes(certificate.read_bytes())
        (self.root / "etc/kubeconfig").write_text(
            config.replace(str(certificate), "/etc/apiserver.crt")
        )


def termination_message(log: str) -> str:
    """What a kubelet keeps of the log of a container that failed."""
    lines = "".join(log.splitlines(keepends=True)[-80:])
    return lines.encode()[-2048:].decode(errors="replace")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _objects() -> dict[str, Any]:
    def pod(name: str, namespace: str, container: str, **labels: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "nodeName": NODE,
                "containers": [
                    {
                        "name": container,
                        "image": "none",
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                    }
                ],
            },
        }

    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE},
        "spec": {
            "podCIDR": "10.244.1.0/24",
            "podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"],
        },
    }
    cilium = pod("cilium-node1", "kube-system", "cilium-agent", **{"k8s-app": "cilium"})
    cilium["spec"]["hostNetwork"] = True
    pods = (pod(name, "default", "netperf", app=name) for name in PODS)
    return {"apiVersion": "v1", "items": [node, cilium, *pods]}


def _script(name: str, *argv: str) -> Path:
    done = subprocess.run(
        [HERE / name, *argv], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(done.stdout.strip())


@contextlib.contextmanager
def cilium_node(version: str, folder: Path, **settings: str) -> Iterator[CiliumNode]:
    """A node with that Cilium, whose agent is not started yet; `folder` is a new one,
    for logs and the API server's files. Removed at the end, whatever happens.
    """
    programs, root = _script("build", version), _script("root")
    _script("../cluster/tools", "--kubernetes")
    layer = folder / "programs"  # where the agent and the CNI plugin look for them
    _layer(layer, programs)
    for name in ("node", "run"):
        (folder / name).mkdir()
    with contextlib.ExitStack() as stack:
        cgroup = stack.enter_context(_cgroup())
        namespace, outside = stack.enter_context(namespaces("node", "outside"))
        _connect(namespace, outside)
        join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
        holder = subprocess.Popen(
            with_us(
                *("sh", "-c", join, str(cgroup), "nsenter", f"--net={namespace.path}"),
                *("unshare", "--mount", "--cgroup", "bash", "-c", _ENTER, "bash"),
                *map(str, (root, folder / "node", layer, folder / "run")),
            ),
            stderr=subprocess.PIPE,
        )
        stack.callback(_end, holder)
        wait_until(partial(_entered, holder), "the node's namespaces")
        api = ApiServer(folder, within=namespace)
        stack.callback(api.stop)
        api.start()
        node = CiliumNode(
            version,
            programs,
            folder,
            namespace,
            holder,
            cgroup,
            api,
            SETTINGS | {key.replace("_", "-"): v for key, v in settings.items()},
        )
        stack.callback(node._pods.close)
        stack.callback(node.stop)
        node.create_objects()
        yield node


def _layer(layer: Path, programs: Path) -> None:
    """Cilium's files, as its image has them: programs and the datapath's source."""
    (layer / "usr/local/bin").mkdir(parents=True)
    _copy_agent(programs / "cilium-agent", layer / "usr/local/bin/cilium-agent")
    for name in ("cilium-cni", "cilium-health-responder"):
        os.link(programs / name, layer / "usr/local/bin" / name)
    (layer / "var/lib/cilium").mkdir(parents=True)
    source = (programs / "source").resolve() / "bpf"
    if programs.name.startswith(("1.15.", "1.16.")):
        # Written for clang 17: for 19 its -Wimplicit-int-conversion says more.
        clang = layer / "usr/local/bin/clang"
        clang.write_text('#!/bin/sh\nexec /usr/bin/clang "$@" -Wno-shorten-64-to-32\n')
        clang.chmod(0o755)
    bpf = layer / "var/lib/cilium/bpf"
    subprocess.run(["cp", "-r", source, bpf], check=True)
    subprocess.run(["chmod", "-R", "u+w", bpf], check=True)


def _copy_agent(source: Path, copy: Path) -> None:
    """Cilium's agent. Up to 1.16 it does not start on a kernel without modules, which
    has no /proc/modules, and procfs takes no file of ours: there, and only there, it
    reads an empty file elsewhere, at a path that is as long.
    """
    if Path("/proc/modules").exists():
        os.link(source, copy)
        return
    program = source.read_bytes()
    copy.write_bytes(program.replace(b"/proc/modules", b"/run//modules"))
    copy.chmod(0o755)


def _connect(node: Namespace, outside: Namespace) -> None:
    veth(node, NATIVE, outside, "node1")
    node.ip(
        f"addr add 198.18.77.11/24 dev {NATIVE}",
        f"addr add fd00:77::11/64 dev {NATIVE} nodad",
        "route add default via 198.18.77.1",
        "route add default via fd00:77::1",
    )
    outside.ip(
        "addr add 198.18.77.1/24 dev node1", "addr add fd00:77::1/64 dev node1 nodad"
    )
    for knob in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        node.run("sysctl", "-qw", f"{knob}=1")


def _entered(holder: subprocess.Popen[bytes]) -> bool:
    if holder.poll() is not None:
        assert holder.stderr
        raise AgentError("cannot make the node", holder.stderr.read().decode())
    return Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stderr:
        process.stderr.close()
