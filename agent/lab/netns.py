# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that are gone when we are, whatever ends us.

A namespace here has no name under /run/netns: it lives as long as the process
that holds it, and the kernel kills that process when we die (PDEATHSIG), also
by SIGKILL. So do the processes that run inside. To look into one by hand:
`nsenter --net=/proc/PID/ns/net`.
"""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

from agent.errors import AgentError, KernelError
from agent.kernel.links import Rtnetlink, own_netns_cookie
from agent.lab.programs import require
from agent.snapshot.model import Sizes

_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def with_us(*argv: str) -> list[str]:
    """The command line of a process that dies with us: PDEATHSIG survives exec.

    Where we die before it is set, nobody would be told: then there is another parent.
    """
    orphaned = f'[ "$PPID" = {os.getpid()} ] && exec "$@"'
    return ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", orphaned, "sh", *argv]


def wait_until(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """Poll until `condition` is true and return its value.

    AgentError, naming `what` was waited for, where it is false even after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        late = time.monotonic() > deadline
        if value := condition():
            return value
        if late:
            raise AgentError(
                f"waited {seconds:.0f} s for {what}",
                "see what the machine is busy with",
            )
        time.sleep(0.005)


def _setns(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns() is new in Python 3.12
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


@dataclass(eq=False)
class Namespace:
    """A network namespace and the processes that were started in it."""

    name: str
    holder: subprocess.Popen[bytes]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The namespace as a file, for nsenter and setns."""
        return f"/proc/{self.holder.pid}/ns/net"

    @property
    def inode(self) -> int:
        """Its number, as `lsns -t net` shows it."""
        return os.stat(self.path).st_ino

    @cached_property
    def cookie(self) -> int:
        """Its net_cookie: unlike the inode never given to another namespace."""
        return self.call(own_netns_cookie)

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` in here and ends when we end."""
        return with_us("nsenter", f"--net={self.path}", *argv)

    def run(self, *argv: str, text: str = "") -> str:
        """Run to the end; what it printed. AgentError where it fails."""
        done = subprocess.run(
            self.command(*argv),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise AgentError(
                f"{' '.join(argv)} failed in namespace {self.name}: "
                f"{said[-1] if said else f'code {done.returncode}'}",
                "is iproute2 complete, and are we root?",
            )
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run lines of `ip -batch` in here."""
        self.run("ip", "-batch", "-", text="".join(f"{line}\n" for line in lines))

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start in the background; it is killed when the namespace is closed."""
        process = subprocess.Popen(
            self.command(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def call(self, function: Callable[[], T]) -> T:
        """Call a function inside: sockets that it opens stay in here."""

        def inside() -> T:
            _setns(self.path)
            return function()

        with ThreadPoolExecutor(1) as its_own_thread:  # which alone moves, and ends
            return its_own_thread.submit(inside).result()

    def set_size(self, device: str, **sizes: int) -> None:
        """Set some size limits of a device, see Rtnetlink.set_sizes()."""

        def inside() -> None:
            with contextlib.closing(Rtnetlink()) as rtnetlink:
                rtnetlink.set_sizes(device, **sizes)

        self.call(inside)

    def set_sizes(self, device: str, size: int) -> None:
        """Set all four size limits of a device, as Cilium's connector does."""
        self.set_size(
            device, gro_max=size, gso_max=size, gro_ipv4_max=size, gso_ipv4_max=size
        )

    def sizes(self, device: str) -> Sizes:
        """The size limits of a device."""

        def inside() -> Sizes:
            with contextlib.closing(Rtnetlink()) as rtnetlink:
                links = {link.name: link.sizes for link in rtnetlink.links()}
            return links[device]

        return self.call(inside)

    def close(self) -> None:
        """End its processes, then the namespace itself."""
        for process in (*self.processes, self.holder):
            process.kill()
        for process in (*self.processes, self.holder):
            process.wait()
        if self.holder.stderr is not None:
            self.holder.stderr.close()


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[list[Namespace]]:
    """New namespaces, loopback up; closed at the end whatever happens."""
    require("setpriv", "unshare", "nsenter", "ip")
    with contextlib.ExitStack() as stack:
        made = []
        for name in names:
            namespace = Namespace(
                name,
                subprocess.Popen(
                    with_us("unshare", "--net", "sleep", "infinity"),
                    stderr=subprocess.PIPE,
                ),
            )
            stack.callback(namespace.close)
            made.append(namespace)
        ours = os.stat("/proc/self/ns/net").st_ino
        for namespace in made:
            wait_until(partial(_entered, namespace, ours), "a network namespace")
            namespace.ip("link set lo up")
        yield made


def _entered(namespace: Namespace, ours: int) -> bool:
    if namespace.holder.poll() is not None:
        assert namespace.holder.stderr is not None
        said = namespace.holder.stderr.read().decode().strip()
        raise KernelError(f"cannot make a network namespace: {said}", "run it as root")
    try:
        return namespace.inode != ours
    except OSError as err:
        raise KernelError(
            f"cannot make a network namespace: {err.strerror}", "run it as root"
        ) from err


def veth(
    left: Namespace,
    left_name: str,
    right: Namespace,
    right_name: str,
    mtu: int = 1500,
) -> None:
    """A pair of devices between two namespaces, both ends up."""
    left.ip(
        f"link add {left_name} mtu {mtu} type veth peer name {right_name} "
        f"netns {right.holder.pid} mtu {mtu}",
        f"link set {left_name} up",
    )
    right.ip(f"link set {right_name} up")

    # The kernel tells the left end in its own time that there is another: until
    # then its qdisc drops what it is given, and no sender hears of it.
    def sends() -> bool:
        return " qdisc noop " not in left.run("ip", "-o", "link", "show", left_name)

    wait_until(sends, f"{left_name} to be up")


@dataclass(frozen=True)
class Stand:
    """Where an experiment runs: client and server, their addresses, and every
    device on the way. `uplink` is the router's device towards the server.
    """

    client: Namespace
    server: Namespace
    addresses: dict[str, str]  # of the server, by family
    devices: Sequence[tuple[Namespace, str]]
    uplink: tuple[Namespace, str] | None = None

    def set_sizes(self, size: int, uplink: int | None = None) -> None:
        """One size for every device; `uplink` another one for that device."""
        for namespace, device in self.devices:
            namespace.set_sizes(device, size)
        if uplink is not None and self.uplink is not None:
            namespace, device = self.uplink
            namespace.set_sizes(device, uplink)

    def sizes(self) -> dict[str, Sizes]:
        """The limits of every device, by its name, which is "NAMESPACE/NAME" for
        those that are not the client's.
        """
        return {
            device if namespace is self.client else f"{namespace.name}/{device}": sizes
            for namespace, device in self.devices
            for sizes in [namespace.sizes(device)]
        }


@contextlib.contextmanager
def pair(mtu: int = 1500) -> Iterator[Stand]:
    """Two namespaces and the veth between them; both ends are called eth0."""
    with namespaces("client", "server") as (client, server):
        veth(client, "eth0", server, "eth0", mtu)
        client.ip(
            "addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0 nodad"
        )
        server.ip(
            "addr add 192.0.2.2/24 dev eth0", "addr add 2001:db8::2/64 dev eth0 nodad"
        )
        yield Stand(
            client,
            server,
            {"ipv4": "192.0.2.2", "ipv6": "2001:db8::2"},
            ((client, "eth0"), (server, "eth0")),
        )


# IPv6 BIG TCP before Linux 7.0 carries an 8-byte hop-by-hop header, which
# ip6_forward() counts: at equal MTUs it answers Packet Too Big.
_HOP_BY_HOP_BYTES = 8


@contextlib.contextmanager
def chain(mtu: int = 1500) -> Iterator[Stand]:
    """Client - router - server; the router's `uplink` leads to the server."""
    ends = mtu - _HOP_BY_HOP_BYTES
    with namespaces("client", "router", "server") as (client, router, server):
        veth(client, "eth0", router, "downlink", mtu)
        veth(router, "uplink", server, "eth0", mtu)
        client.ip(
            "addr add 192.0.2.1/25 dev eth0",
            "addr add 2001:db8:1::1/64 dev eth0 nodad",
            f"link set eth0 mtu {ends}",
            "route add default via 192.0.2.126",
            "route add default via 2001:db8:1::ffff",
        )
        router.ip(
            "addr add 192.0.2.126/25 dev downlink",
            "addr add 2001:db8:1::ffff/64 dev downlink nodad",
            "addr add 192.0.2.254/25 dev uplink",
            "addr add 2001:db8:2::ffff/64 dev uplink nodad",
        )
        server.ip(
            "addr add 192.0.2.129/25 dev eth0",
            "addr add 2001:db8:2::1/64 dev eth0 nodad",
            f"link set eth0 mtu {ends}",
            "route add default via 192.0.2.254",
            "route add default via 2001:db8:2::ffff",
        )
        router.call(_forward)
        yield Stand(
            client,
            server,
            {"ipv4": "192.0.2.129", "ipv6": "2001:db8:2::1"},
            (
                (client, "eth0"),
                (router, "downlink"),
                (router, "uplink"),
                (server, "eth0"),
            ),
            uplink=(router, "uplink"),
        )


def _forward() -> None:
    # /proc/thread-self/net is ours, /proc/sys/net that of whoever opens it.
    for knob in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        with open(f"/proc/sys/net/{knob}", "w") as file:
            file.write("1")
