# SPDX-License-Identifier: Apache-2.0
"""A node: network and mount namespaces of its own, one kernel, as in kind.

Its programs find everything at the usual places (/run/containerd,
/var/lib/kubelet, /var/run/cilium, /etc/cni) and write to memory there: the
machine has none of it, and no two nodes share any.
"""

import contextlib
import http.client
import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.lab.netns import Namespace, wait_until
from tests.cluster.processes import WITH_US, find

NUMBERS = (1, 2)
_OWN_FOLDERS = """
set -e
mount --make-rshared / # a pod may ask for propagation
mount -t tmpfs tmpfs /run
for folder in etc opt var; do
    mkdir -p /run/.$folder/upper /run/.$folder/work
    layers=lowerdir=/$folder,upperdir=/run/.$folder/upper,workdir=/run/.$folder/work
    mount -t overlay -o $layers overlay /$folder
done
mkdir -p /var/lib/containerd /etc/cni/net.d
mount -t tmpfs tmpfs /var/lib/containerd # overlayfs does not lie on overlayfs
exec -a "$0" sleep infinity
"""


@dataclass(eq=False)
class Node(Namespace):
    """A node, by a process that holds its namespaces."""

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` on the node and ends when we end."""
        target = f"--target={self.holder.pid}"
        return super().command("nsenter", target, "--mount", *argv)

    @property
    def root(self) -> Path:
        """Its file system, seen from outside."""
        return Path(f"/proc/{self.holder.pid}/root")

    def cilium(self, path: str) -> Any:
        """An answer of its Cilium agent: healthz, config, endpoint."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.root / "run/cilium/cilium.sock"))
            connection.request("GET", f"/v1/{path}")
            return json.load(connection.getresponse())


def make(number: int) -> Node:
    """A new node; it dies with this process."""
    unshare = ("unshare", "--net", "--mount", "bash", "-c", _OWN_FOLDERS)
    return _held(number, _name(number), *unshare)


def attach(number: int) -> Node:
    """A node of the cluster that is up."""
    pids = find(_name(number), "infinity")
    if not pids:
        raise AgentError("no cluster is up", "bring one up: make cluster")
    nsenter = ("nsenter", f"--target={pids[0]}", "--net", "--mount")
    ours = f"{_name(number)}-visitor"
    return _held(number, ours, *nsenter, "bash", "-c", 'exec -a "$0" sleep infinity')


def _held(number: int, name: str, *argv: str) -> Node:
    holder = subprocess.Popen([*WITH_US, *argv, name])

    def there() -> bool:
        if holder.poll() is not None:
            raise AgentError(
                f"cannot enter the namespaces of node{number}", "run it as root"
            )
        return holder.pid in find(name, "infinity")

    wait_until(there, f"the namespaces of node{number}")
    return Node(f"node{number}", holder)


def _name(number: int) -> str:
    """Of the process that holds a node, as `ps` shows it."""
    return f"bigtcp-cluster-node{number}"


def address4(host: int) -> str:
    """In the nodes' network; 198.18.0.0/15 is for test networks (RFC 2544)."""
    return f"198.18.0.{host}"


def address6(host: int) -> str:
    """In the nodes' network."""
    return f"fd00:18::{host}"


def host_number(node: int) -> int:
    """1 is the host's, 254 the machine's."""
    return 10 + node
