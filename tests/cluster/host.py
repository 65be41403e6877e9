# SPDX-License-Identifier: Apache-2.0
"""The host of the nodes, as a process: control plane, bridge, nodes.

It is the first process of a PID namespace and has a mount and a network
namespace too (see `cluster.up`): when it ends, by whatever, the kernel ends all
that it started and takes down mounts, devices and namespaces with it.
"""

import os
import secrets
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import NoReturn

from agent.lab.netns import Namespace, wait_until
from tests.cluster import cgroups, image, nodes

API = f"https://{nodes.address4(1)}"
BRIDGE = "nodes"
_ETCD = "http://127.0.0.1:2379"
_KEYS = Path("/run/kubernetes")  # ours alone: /run is memory of this namespace
_CONTAINERD = f"""
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image.PODS}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "BIN"
"""
_DNS = f"""
. {{
    bind {nodes.address4(1)}
    errors
    kubernetes cluster.local {{
        kubeconfig KUBECONFIG
    }}
}}
"""
_KUBELET = f"""
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
clusterDNS: [{nodes.address4(1)}]
clusterDomain: cluster.local
cgroupDriver: cgroupfs
cgroupRoot: CGROUP
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
resolvConf: ""
failSwapOn: false
failCgroupV1: false
oomScoreAdj: 0
enforceNodeAllocatable: []
evictionHard: {{}}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
syncFrequency: 10s
featureGates: {{KubeletInUserNamespace: true}}
"""


class Host:
    """Starts things; `programs` is where tests/cluster/tools built them."""

    def __init__(self, programs: Path, state: Path) -> None:
        self._programs = programs
        self._state = state
        self._here = Namespace("host", subprocess.Popen(["sleep", "infinity"]))

    def start(self, name: str, *argv: str) -> None:
        """Start a program; what it says is in the state's log/NAME.log."""
        with (self._state / "log" / f"{name}.log").open("wb") as log:
            subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def bridge(self, machine: str) -> None:
        """The nodes' network, and a way to it from the machine's own namespace."""
        self._here.ip(
            "link set lo up",
            "addr add 10.96.0.1/32 dev lo",  # the service `kubernetes`, no kube-proxy
            f"link add name {BRIDGE} type bridge",
            f"addr add {nodes.address4(1)}/24 dev {BRIDGE}",
            f"addr add {nodes.address6(1)}/64 dev {BRIDGE} nodad",
            f"link set {BRIDGE} up",
            f"link add name machine master {BRIDGE} type veth "
            f"peer name {cgroups.NAME} netns {machine}",
            "link set machine up",
            *(
                f"route add 10.244.{number}.0/24 via "
                f"{nodes.address4(nodes.host_number(number))}"
                for number in nodes.NUMBERS
            ),
        )
        subprocess.run(
            ["nsenter", f"--net={machine}", "ip", "-batch", "-"],
            input=f"addr add {nodes.address4(254)}/24 dev {cgroups.NAME}\n"
            f"link set {cgroups.NAME} up\n",
            text=True,
            check=True,
        )

    def control_plane(self) -> None:
        """etcd, API server, controllers, scheduler; the kubeconfig of an admin."""
        _KEYS.mkdir()
        token = secrets.token_hex(16)
        (_KEYS / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        key = str(_KEYS / "sa.key")
        subprocess.run(
            ["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True
        )
        self.start(
            "etcd",
            *("etcd", "--data-dir=/run/etcd", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380",
        )
        self.start(
            "kube-apiserver",
            *("kube-apiserver", f"--etcd-servers={_ETCD}", "--secure-port=443"),
            *(f"--advertise-address={nodes.address4(1)}", f"--cert-dir={_KEYS}"),
            *(f"--token-auth-file={_KEYS}/tokens.csv", "--allow-privileged"),
            *(f"--service-account-issuer={API}", "--authorization-mode=Node,RBAC"),
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
            "--kubelet-preferred-address-types=InternalIP",
        )
        certificate = _KEYS / "apiserver.crt"
        wait_until(
            lambda: certificate.exists() and certificate.read_text(),
            "the API server's certificate",
        )
        authority = b64encode(certificate.read_bytes()).decode()
        config = self._state / "kubeconfig"
        config.touch(0o600)
        config.write_text(
            f"""apiVersion: v1
kind: Config
clusters: [{{name: bigtcp, cluster:
  {{server: '{API}', certificate-authority-data: {authority}}}}}]
users: [{{name: admin, user: {{token: {token}}}}}]
contexts: [{{name: bigtcp, context: {{cluster: bigtcp, user: admin}}}}]
current-context: bigtcp
"""
        )
        ready = ("kubectl", f"--kubeconfig={config}", "get", "--raw", "/readyz")
        wait_until(lambda: _works(*ready), "the API server to be ready", 90)
        self.start(
            "kube-controller-manager",
            *("kube-controller-manager", f"--kubeconfig={config}"),
            *("--leader-elect=false", f"--cert-dir={_KEYS}"),
            f"--service-account-private-key-file={key}",
            *(f"--root-ca-file={certificate}", "--bind-address=127.0.0.1"),
        )
        self.start(
            "kube-scheduler",
            *("kube-scheduler", f"--kubeconfig={config}", f"--cert-dir={_KEYS}"),
            *("--leader-elect=false", "--bind-address=127.0.0.1"),
        )

    def dns(self) -> None:
        """The names of services, for pods that ask the cluster's DNS."""
        settings = self._state / "Corefile"
        settings.write_text(_DNS.replace("KUBECONFIG", str(self._state / "kubeconfig")))
        self.start("coredns", "coredns", f"-conf={settings}")

    def runtime(self, number: int) -> nodes.Node:
        """A node with its network and containerd."""
        node = nodes.make(number)
        port, host = node.name, nodes.host_number(number)
        self._here.ip(
            f"link add name {port} master {BRIDGE} type veth "
            f"peer name eth0 netns {node.holder.pid}",
            f"link set {port} up",
        )
        node.ip(
            "link set lo up",
            f"addr add {nodes.address4(host)}/24 dev eth0",
            f"addr add {nodes.address6(host)}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {nodes.address4(1)}",
        )
        for other in set(nodes.NUMBERS) - {number}:
            at = nodes.host_number(other)
            node.ip(
                f"route add 10.244.{other}.0/24 via {nodes.address4(at)}",
                f"route add fd00:244:{other}::/64 via {nodes.address6(at)}",
            )
        node.call(_forward)
        settings = self._state / "containerd.toml"
        settings.write_text(_CONTAINERD.replace("BIN", str(self._programs)))
        self.start(
            f"containerd-{node.name}",
            *node.command("containerd", f"--config={settings}"),
        )
        return node

    def kubelet(self, node: nodes.Node, number: int) -> None:
        """Give a node its images and its kubelet."""
        wait_until(
            lambda: _works(*node.command("ctr", "version")), "containerd to answer", 60
        )
        for archive in sorted((self._state / "images").iterdir()):
            node.run("ctr", "--namespace=k8s.io", "images", "import", str(archive))
        settings = self._state / f"kubelet-{node.name}.yaml"
        settings.write_text(_KUBELET.replace("CGROUP", cgroups.make(node.name)))
        host = nodes.host_number(number)
        self.start(
            f"kubelet-{node.name}",
            *node.command("kubelet", f"--config={settings}"),
            f"--kubeconfig={self._state / 'kubeconfig'}",
            f"--hostname-override={node.name}",
            f"--node-ip={nodes.address4(host)},{nodes.address6(host)}",
        )


def _forward() -> None:
    for knob in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path(f"/proc/sys/net/{knob}").write_text("1")


def _works(*argv: str) -> bool:
    return not subprocess.run(argv, capture_output=True, check=False).returncode


def main(programs: Path, state: Path, machine: str, ready: int) -> NoReturn:
    """Start everything, write a line to the fd `ready`, then reap for ever."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    host = Host(programs, state)
    host.bridge(machine)
    made = {number: host.runtime(number) for number in nodes.NUMBERS}
    host.control_plane()
    host.dns()
    for number, node in made.items():
        host.kubelet(node, number)
    with os.fdopen(ready, "w") as pipe:
        pipe.write("ready\n")
    while True:  # orphans become our children
        os.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
