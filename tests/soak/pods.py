# SPDX-License-Identifier: Apache-2.0
"""Pods by the dozen: network namespaces without a process, made by a thread.

Such a namespace lives as long as a file of it is open, so it is gone when we are. A
pod is made in 2 ms, one of agent.lab.netns in 30 ms, which starts processes.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Self, TypeVar

from agent.lab.netns import Namespace, wait_until
from tests.kernel.frames import packet_socket

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL, _SOL_PACKET, _PACKET_STATISTICS = 3, 263, 6
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_ETH_HLEN = 14
T = TypeVar("T")


class Counters(NamedTuple):
    """Of a device: skbs and their L3 bytes. `sent` has what the device dropped, too,
    which is sent for the kernel's hook; `sent_bytes` has not.
    """

    sent: int = 0
    sent_bytes: int = 0
    received: int = 0
    received_bytes: int = 0
    dropped: int = 0

    def plus(self, other: "Counters") -> "Counters":
        return Counters(*(a + b for a, b in zip(self, other, strict=True)))


def device_counters(text: str) -> dict[str, Counters]:
    """Of /proc/net/dev, which are rtnl_link_stats64, by name."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        values = [int(number) for number in numbers.split()]
        received_bytes, received, sent_bytes, sent, dropped = (
            values[at] for at in (0, 1, 8, 9, 11)
        )
        found[name.strip()] = Counters(
            sent + dropped,
            sent_bytes - _ETH_HLEN * sent,
            received,
            received_bytes - _ETH_HLEN * received,
            dropped,
        )
    return found


class Port:
    """An end of a veth pair: sends frames, and knows how many have arrived there."""

    def __init__(self, device: str) -> None:
        """To be called in the namespace of the device."""
        self.socket = packet_socket()
        # The least the kernel gives: what arrives is only counted.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        self.socket.bind((device, _ETH_P_ALL))
        self.sent = self._arrived = 0

    def send(self, frames: Sequence[bytes]) -> None:
        for each in frames:
            self.socket.send(each)
        self.sent += len(frames)

    def arrived(self) -> int:
        """Skbs, once the kernel's receive hook has seen them: packet_rcv() counts
        those for which there is no room, too. Nobody is told of its own.
        """
        told = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._arrived += struct.unpack("=II", told)[0]
        return self._arrived


@dataclass(eq=False)
class Pod:
    """A namespace with eth0; `host` is the other end, the node's `device`."""

    device: str
    netns: int  # descriptor
    counters: int  # descriptor of its /proc/net/dev
    ends: list[Port] = field(default_factory=list)  # of the pod, of the node

    def all_arrived(self) -> bool:
        own, host = self.ends
        return own.arrived() >= host.sent and host.arrived() >= own.sent

    def close(self) -> None:
        """The kernel removes the namespace and both devices in its own time."""
        for end in self.ends:
            end.socket.close()
        os.close(self.counters)
        os.close(self.netns)


class Node:
    """Makes pods of a namespace, in threads of its own."""

    def __init__(self, space: Namespace) -> None:
        self.space = space
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._number = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._home = self._thread()
        self._maker = self._thread()
        node = os.open(self.space.path, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, node)
        for thread in (self._home, self._maker):
            thread.submit(self._enter, node).result()
        self._netns = node
        self._home.submit(_no_ipv6).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(self, function: Callable[[], T]) -> T:
        return self._home.submit(function).result()

    def counters(self) -> dict[str, Counters]:
        """Of the node's devices."""

        def read() -> str:
            with open("/proc/thread-self/net/dev") as file:
                return file.read()

        return device_counters(self.call(read))

    def make(self, number: int) -> list[Pod]:
        """New pods, whose devices are up on both sides."""
        pods: list[Pod] = []
        try:
            pods += self._maker.submit(self._make, number).result()
            self.call(lambda: self._connect(pods))
        except BaseException:
            for pod in pods:
                pod.close()
            raise
        return pods

    def _make(self, number: int) -> list[Pod]:
        pods = []
        for _ in range(number):
            if self._libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            _no_ipv6()
            self._number += 1
            files = (f"/proc/thread-self/{name}" for name in ("ns/net", "net/dev"))
            netns, counters = (
                os.open(one, os.O_RDONLY | os.O_CLOEXEC) for one in files
            )
            pods.append(Pod(f"lxc{self._number}", netns, counters))
        self._enter(self._netns)
        return pods

    def _connect(self, pods: list[Pod]) -> None:
        here = f"/proc/{os.getpid()}/fd"
        lines = [
            line
            for pod in pods
            for line in (
                f"link add {pod.device} type veth peer eth0 netns {here}/{pod.netns}",
                f"link set {pod.device} up",
            )
        ]
        _ip("-batch", "-", text="".join(f"{line}\n" for line in lines))
        for pod in pods:
            own = self._maker.submit(self._open, pod).result()
            pod.ends += [own, Port(pod.device)]
        self._maker.submit(self._enter, self._netns).result()

        # rtnl_getlink(), for one device, lets the first end that was up send.
        lines = [f"link show dev {pod.device}" for pod in pods]

        def up() -> bool:
            shown = _ip("-o", "-batch", "-", text="".join(f"{one}\n" for one in lines))
            return all(" state UP " in one for one in shown.splitlines())

        wait_until(up, "the pods' devices to be up")

    def _open(self, pod: Pod) -> Port:
        self._enter(pod.netns)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            flags = struct.pack("16sH14x", b"eth0", _IFF_UP)
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, flags)
        return Port("eth0")

    def _enter(self, netns: int) -> None:
        if self._libc.setns(netns, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    def _thread(self) -> ThreadPoolExecutor:
        return self._stack.enter_context(ThreadPoolExecutor(1))


def own_counters(pod: Pod) -> Counters:
    """Of its eth0."""
    return device_counters(os.pread(pod.counters, 1 << 16, 0).decode())["eth0"]


def _ip(*argv: str, text: str = "") -> str:
    """A child is where the thread is that makes it: in the node."""
    done = subprocess.run(
        ["ip", *argv], input=text, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _no_ipv6() -> None:
    """For devices to come: the kernel says nothing on them by itself."""
    with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
        file.write("1")


def settle(pods: Sequence[Pod]) -> None:
    """Wait until all that was sent has arrived."""
    for pod in pods:
        wait_until(pod.all_arrived, f"the packets of {pod.device}")
