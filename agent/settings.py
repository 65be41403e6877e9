# SPDX-License-Identifier: Apache-2.0
"""Values of flags, understood once; each part is handed just the one it needs."""

import fnmatch
import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from agent.errors import BadValueError
from agent.snapshot.model import Hook

_PORTS = 65536
DEFAULT_LISTEN = ":19715"
DEFAULT_HOOKS = "net_dev_start_xmit,netif_receive_skb,net_dev_queue"
# Host sides of pods and of virtual machines come and go by the hundred, and each
# name keeps its place among the few: they are summed unless named.
DEFAULT_INTERFACES = "!lxc*,!veth*,!cali*,!eni*,!vnet*,!tap*"
DEFAULT_MAX_INTERFACES = 8
CILIUM_SOCKET = "/var/run/cilium/cilium.sock"
_MOST_MESSAGE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; an empty host is every address, IPv4 and IPv6."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From HOST:PORT, [IPV6]:PORT or :PORT; BadValueError otherwise."""
        match = re.fullmatch(
            r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]\s]*)):([0-9]{1,5})", text
        )
        if match is None or not int(match[3]) < _PORTS:
            raise BadValueError(
                f"--listen {text!r} is no address",
                "use HOST:PORT, [IPV6]:PORT or :PORT, such as 127.0.0.1:19715",
            )
        return cls(match[1] or match[2] or "", int(match[3]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_hooks(text: str) -> tuple[Hook, ...]:
    """From a comma-separated list, each hook once; BadValueError otherwise."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [str(hook) for hook in Hook]
    for name in names:
        if name not in known:
            raise BadValueError(
                f"--hooks: there is no hook {name!r}", f"hooks are {', '.join(known)}"
            )
    if not names:
        raise BadValueError("--hooks names no hook", f"hooks are {', '.join(known)}")
    return tuple(Hook(name) for name in dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class Server:
    """A netserver: `host` is a name or an address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int) -> Self:
        """From HOST, HOST:PORT, IPV6, [IPV6] or [IPV6]:PORT; BadValueError
        otherwise.
        """
        if is_ipv6(text):
            return cls(text, default_port)
        match = re.fullmatch(r"(?:\[([^\]\s]+)\]|([\w.-]+))(?::([0-9]{1,5}))?", text)
        port = int(match[3] or default_port) if match else 0
        if not match or not 0 < port < _PORTS or (match[1] and not is_ipv6(match[1])):
            raise BadValueError(
                f"--server {text!r} is no server",
                "use HOST, HOST:PORT or [IPV6]:PORT; without a port it is "
                f"{default_port}",
            )
        return cls(match[1] or match[2], port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def is_ipv6(text: str) -> bool:
    """An address, without brackets."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def parse_messages(text: str) -> tuple[int, int]:
    """Bytes of a request and of a response, from N:N; BadValueError otherwise."""
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text)
    sizes = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(0 < size <= _MOST_MESSAGE_BYTES for size in sizes):
        raise BadValueError(
            f"-r {text!r} is no pair of sizes",
            f"use REQUEST:RESPONSE in bytes, 1 to {_MOST_MESSAGE_BYTES} each, such as "
            "80000:80000",
        )
    return sizes


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where Cilium and Kubernetes are. `cilium_socket` is "" where Cilium's agent is
    not to be asked. `node` is this node's name for Kubernetes; without one the API
    server is left alone.
    """

    cilium_socket: str
    node: str
    kubeconfig: str
    namespace: str
    config_map: str
    pods: bool = False  # since when this node's pods run, and their addresses
    cilium_pods: bool = False  # why Cilium's agent ended last


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Which of the node's devices are shown by name.

    One is when no `exclude` pattern matches its name and, where there are
    `include` patterns, one of those does; the first `most` of them, by ifindex.
    """

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    most: int

    @classmethod
    def parse(cls, text: str, most: int) -> Self:
        """From comma-separated shell patterns, `!` before those to leave out."""
        patterns = [pattern.strip() for pattern in text.split(",") if pattern.strip()]
        if "!" in patterns:
            raise BadValueError(
                "--interfaces: there is no pattern behind a '!'",
                "use shell patterns such as 'eth*,bond0' or '!lxc*'",
            )
        return cls(
            tuple(pattern for pattern in patterns if not pattern.startswith("!")),
            tuple(pattern[1:] for pattern in patterns if pattern.startswith("!")),
            most,
        )

    def wants(self, name: str) -> bool:
        """Is this name to be shown, the cap aside?"""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.include
        )
