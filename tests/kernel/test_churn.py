# SPDX-License-Identifier: Apache-2.0
"""Namespaces that come and go under traffic: nothing grows, nothing is lost."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest

from agent.kernel.links import Rtnetlink
from agent.kernel.probes import Probes
from agent.lab.netns import Namespace, namespaces, veth, wait_until
from agent.snapshot.collector import GRACE_SECONDS, Collector
from agent.snapshot.model import DeviceId, Family, Hook, Scope
from agent.snapshot.snapshot import DeviceRows, Snapshot
from agent.views.exporter import metrics
from tests.kernel.frames import N, frame, ip_packet, packet_socket, send_frames
from tests.kernel.nodes import ifindex_of
from tests.stand import write_sysctl

BATCHES, PODS = 10, 50
PACKET = frame(Family.IPV4, ip_packet(Family.IPV4, 100))
STEADY = frame(Family.IPV6, ip_packet(Family.IPV6, 100))  # nobody else's family here
SENT, GOT = Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB


@contextlib.contextmanager
def meanwhile(*actions: Callable[[], None]) -> Iterator[None]:
    """Each again and again, in a thread of its own. Raises what they raised."""
    stop = Event()

    def again(action: Callable[[], None]) -> None:
        while not stop.wait(0.05):
            action()

    with ThreadPoolExecutor(len(actions)) as threads:
        running = [threads.submit(again, action) for action in actions]
        try:
            yield
        finally:
            stop.set()
            for each in running:
                each.result()


def pods_in(snapshot: Snapshot) -> list[DeviceRows]:
    return [device for device in snapshot.devices if device.scope is Scope.PODS]


def lost(snapshot: Snapshot) -> int:
    """A burst of new rows may find the kernel's allocator empty, on a busy machine:
    that is told.
    """
    return sum(snapshot.unrecorded.values())


class Watched:
    """A node that sends, and who reads what was counted there."""

    def __init__(
        self, stack: contextlib.ExitStack, node: Namespace, probes: Probes
    ) -> None:
        def rtnetlink() -> Rtnetlink:
            return stack.enter_context(contextlib.closing(node.call(Rtnetlink)))

        self._links = rtnetlink()
        self._raw = stack.enter_context(node.call(packet_socket))
        self._now = 0.0
        self._collector = Collector(
            probes, rtnetlink().links, node.cookie, monotonic=lambda: self._now
        )
        self._before: dict[tuple[Scope, Hook, Family], int] = {}
        self.devices: list[str] = []  # of the pods that are there now
        self.sent = 0

    def snapshot(self) -> Snapshot:
        return self._collector.snapshot()

    def send_steadily(self) -> None:
        self._raw.sendto(STEADY, ("eth0", 0))
        self.sent += 1

    def send_to_pods(self) -> None:
        for device in self.devices:
            with contextlib.suppress(OSError):  # it is not there, or just goes
                self._raw.sendto(PACKET, (device, 0))

    def read(self) -> None:
        """No count of a scope ever goes back."""
        snapshot = self.snapshot()
        for scope in Scope:
            for at, lengths in snapshot.total(scope).items():
                count = lengths.histogram.count
                assert count >= self._before.get((scope, *at), 0)
                self._before[(scope, *at)] = count

    def all_active(self, packets: int) -> bool:
        """Each pod has been sent to, and what they sent has arrived."""
        snapshot = self.snapshot()
        to_pods = [pod for pod in pods_in(snapshot) if (GOT, Family.IPV4) in pod.rows]
        got = snapshot.total(Scope.NODE).get((GOT, Family.IPV4))
        arrived = got.histogram.count if got else 0
        return len(to_pods) == PODS and arrived >= packets - lost(snapshot)

    def no_device(self) -> bool:
        return not any(link.name in self.devices for link in self._links.links())

    def no_pod(self) -> bool:
        self.snapshot()
        self._now += GRACE_SECONDS
        return not pods_in(self.snapshot())


def connect(node: Namespace, devices: list[str], pods: list[Namespace]) -> None:
    """A device each, as veth() makes them, but all at once."""
    for pod in pods:
        write_sysctl(pod, "ipv6/conf/default/disable_ipv6", "1")
    node.ip(
        *(
            f"link add {device} type veth peer name eth0 netns {pod.holder.pid}"
            for device, pod in zip(devices, pods, strict=True)
        ),
        *(f"link set {device} up" for device in devices),
    )
    for pod in pods:
        pod.ip("link set eth0 up")


def series(snapshot: Snapshot) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """All but what others on this machine add."""
    return {
        (sample.name, frozenset(sample.labels.items()))
        for metric in metrics(snapshot)
        for sample in metric.samples
        if sample.labels.get("scope") != Scope.OTHER
    }


def expect_only(probes: Probes, node: DeviceId, dead: set[int]) -> None:
    """Nothing is left of dead namespaces, and of the node's devices but one.

    What stands on the fast lane only the kernel can remove, when another row wants
    the slot: until then the maps may have it, too, so that is all they may have.
    """
    _, slots = probes._recent.read()
    fast = {(int(key["netns"]), int(key["ifindex"])) for key in slots["key"].flat}
    reading = probes.read()
    keys, _ = probes._lengths.read()

    def of_the_dead(devices: set[tuple[int, int]]) -> set[tuple[int, int]]:
        return {
            (netns, ifindex)
            for netns, ifindex in devices
            if netns in dead or (netns == node.netns and ifindex != node.ifindex)
        }

    rows = {(key.device.netns, key.device.ifindex) for key in reading.rows}
    assert not of_the_dead(rows)
    kept = {(int(key["netns"]), int(key["ifindex"])) for key in keys}
    kept |= {(device.netns, device.ifindex) for device in reading.devices}
    assert of_the_dead(kept) <= fast


@pytest.fixture
def restless() -> Iterator[Probes]:
    """Probes whose rows give way when they have been still for a second, or less."""
    with Probes.load([SENT, GOT], IDLE_JIFFIES=250) as probes:
        yield probes


def test_500_pods_come_and_go(restless: Probes) -> None:
    """While they are sent to until they are gone, somebody reads all the time, and
    a device that stays sends what is counted to the last packet."""
    dead: set[int] = set()
    first = None
    with contextlib.ExitStack() as stack:
        node, world = stack.enter_context(namespaces("node", "world"))
        for space in (node, world):
            write_sysctl(space, "ipv6/conf/default/disable_ipv6", "1")
        veth(node, "eth0", world, "eth0")
        node.ip("addr add 192.0.2.1/24 dev eth0")  # an uplink: the world is no pod
        watched = Watched(stack, node, restless)
        with meanwhile(watched.send_steadily, watched.send_to_pods, watched.read):
            for batch in range(1, BATCHES + 1):
                devices = [f"lxc{batch}.{number}" for number in range(PODS)]
                with namespaces(*devices) as pods:
                    dead |= {pod.cookie for pod in pods}
                    connect(node, devices, pods)
                    watched.devices = devices
                    for pod in pods:
                        send_frames(pod, [PACKET] * N)
                    packets = batch * PODS * N
                    wait_until(partial(watched.all_active, packets), "the packets")
                # The kernel takes a dead namespace's devices down when it has time.
                wait_until(watched.no_device, "the devices to be gone")
                wait_until(watched.no_pod, "the pods to be forgotten")
                snapshot = watched.snapshot()
                sent = snapshot.total(Scope.PODS)[SENT, Family.IPV4]
                got = snapshot.total(Scope.NODE)[GOT, Family.IPV4]
                least = packets - lost(snapshot)
                assert least <= sent.histogram.count <= packets
                assert least <= got.histogram.count <= packets
                first = first or series(snapshot)
                assert series(snapshot) == first
        assert least > 0.9 * packets
        rows = {device.id: device.rows for device in watched.snapshot().devices}
        for space, hook in ((node, SENT), (world, GOT)):
            eth0 = DeviceId(space.cookie, ifindex_of(space, "eth0"))
            steady = rows[eth0][hook, Family.IPV6].lengths
            assert steady.histogram.count == watched.sent
        eth0 = DeviceId(node.cookie, ifindex_of(node, "eth0"))
        expect_only(restless, eth0, dead)
