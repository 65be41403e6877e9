# SPDX-License-Identifier: Apache-2.0
"""N skbs of known lengths go in; exactly those counts come out."""

import contextlib
import socket
from bisect import bisect_left
from functools import partial

import pytest

from agent.kernel.links import Rtnetlink, own_netns_cookie
from agent.kernel.probes import Probes
from agent.lab.demo import BIG
from agent.lab.netns import Namespace, namespaces, veth, wait_until
from agent.snapshot.collector import Collector
from agent.snapshot.model import Family, Hook, Lengths, Scope
from tests.kernel.frames import N, frame, gso_frame, ip_packet, send_frames
from tests.kernel.nodes import FAMILIES
from tests.stand import quiet_pair, row_of, seen

LIMITS = {
    "gso_max": 100_000,
    "gro_max": 110_000,
    "gso_ipv4_max": 120_000,
    "gro_ipv4_max": 130_000,
}


def expect(lengths: Lengths, sizes: list[int], segments: int = 1) -> None:
    """There are skbs of exactly these lengths, each of so many segments."""
    slots = [0] * (len(lengths.histogram.edges) + 1)
    for size in sizes:
        slots[bisect_left(lengths.histogram.edges, size)] += 1
    assert list(lengths.histogram.slots) == slots
    assert lengths.histogram.bytes == sum(sizes)
    assert lengths.histogram.big_bytes == sum(size for size in sizes if size > 65536)
    assert lengths.longest == max(sizes)
    assert lengths.segments == segments * len(sizes)


def wait_for(probes: Probes, server: Namespace, family: Family, count: int) -> None:
    def arrived() -> bool:
        got = seen(probes, server, Hook.NETIF_RECEIVE_SKB, family)
        return got.histogram.count >= count

    wait_until(arrived, "the frames to arrive")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tags", [0, 1, 2])
def test_known_lengths_are_counted_exactly(
    probes: Probes, family: Family, tags: int
) -> None:
    """L3 lengths on and beside the edges, at the sender's and the receiver's
    device, with VLAN tags in the frame or without."""
    sizes = [60, 127, 128, 129, 512, 1500, 1501, 9000, 32769, 65000] * N
    with quiet_pair(mtu=65535) as (client, server):
        frames = [frame(family, ip_packet(family, size), tags) for size in sizes]
        send_frames(client, frames)
        wait_for(probes, server, family, len(sizes))
        expect(seen(probes, client, Hook.NET_DEV_START_XMIT, family), sizes)
        expect(seen(probes, server, Hook.NETIF_RECEIVE_SKB, family), sizes)
        assert not seen(probes, client, Hook.NET_DEV_QUEUE, family).histogram.count
        assert not seen(probes, server, Hook.NET_DEV_START_XMIT, family).segments


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tags", [0, 1, 2])
def test_big_is_what_is_above_64_kib(probes: Probes, family: Family, tags: int) -> None:
    """65,535 and 65,536 L3 bytes are not big, 65,537 are, though all three are
    above 64 KiB with their link header."""
    sizes = [65535, 65536, 65537, 66000] * N
    segments = 66  # of 1000 bytes; with the headers or without
    with quiet_pair() as (client, server):
        client.set_sizes("eth0", BIG)
        send_frames(client, [gso_frame(family, size, 1000, tags) for size in sizes])
        wait_for(probes, server, family, len(sizes))
        sent = seen(probes, client, Hook.NET_DEV_START_XMIT, family)
        got = seen(probes, server, Hook.NETIF_RECEIVE_SKB, family)
        queued = seen(probes, client, Hook.NET_DEV_QUEUE, family)
    expect(sent, sizes, segments)
    expect(got, sizes, segments)
    expect(queued, [65537, 66000] * N, segments)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_tells_the_limit_that_holds_now(probes: Probes, family: Family) -> None:
    """The sender's of GSO, the receiver's of GRO; of IPv4 before Linux 6.3: 64 KiB."""
    packet = frame(family, ip_packet(family, 100))
    with quiet_pair() as (client, server):
        for number, limits in enumerate(({}, LIMITS), start=1):
            client.set_size("eth0", **limits)
            server.set_size("eth0", **limits)
            send_frames(client, [packet])
            wait_for(probes, server, family, number)
            reading = probes.read()
            sent = row_of(reading, client, Hook.NET_DEV_START_XMIT, family)
            got = row_of(reading, server, Hook.NETIF_RECEIVE_SKB, family)
            assert sent
            assert got
            sizes = client.sizes("eth0")
            if family is Family.IPV6:
                assert (sent.limit, got.limit) == (sizes.gso_max, sizes.gro_max)
            else:
                assert sent.limit == (sizes.gso_ipv4_max or 65536)
                assert got.limit == (sizes.gro_ipv4_max or 65536)


def test_loopback_is_left_out(probes: Probes) -> None:
    """Its skbs are above 64 KiB without any BIG TCP."""
    with namespaces("alone") as (alone,):
        for kind, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::1"),
        ):
            with alone.call(partial(socket.socket, kind, socket.SOCK_DGRAM)) as udp:
                udp.bind((address, 5000))
                udp.settimeout(10)
                for _ in range(N):
                    udp.sendto(bytes(100), (address, 5000))
                    assert len(udp.recv(1000)) == 100
        assert not any(key.device.netns == alone.cookie for key in probes.read().rows)


def test_equal_names_and_indexes_stay_apart(probes: Probes) -> None:
    """Both ends are `eth0` with the same ifindex: only the namespace differs."""
    with quiet_pair() as (client, server):
        send_frames(client, [frame(Family.IPV4, ip_packet(Family.IPV4, 100))] * N)
        reading = probes.read()
        ours = {
            device.id.netns: device
            for device in reading.devices.values()
            if device.id.netns in (client.cookie, server.cookie)
        }
        there, here = ours[client.cookie], ours[server.cookie]
        assert (there.name, there.id.ifindex) == (here.name, here.id.ifindex)
        assert (there.peer, here.peer) == (here.id, there.id)
        assert (there.kind, here.kind) == ("veth", "veth")
        assert (there.netns_inode, here.netns_inode) == (client.inode, server.inode)
        xmit = [
            key.device.netns
            for key in reading.rows
            if key.hook is Hook.NET_DEV_START_XMIT and key.device.netns in ours
        ]
        assert xmit == [client.cookie]


def test_whose_it_is(probes: Probes) -> None:
    """Two nodes with a pod each on this one kernel: each counts its own, and the
    far side of its uplink is no pod."""
    with namespaces("node1", "pod1", "node2", "pod2") as spaces:
        node1, pod1, node2, pod2 = spaces
        veth(node1, "eth0", node2, "eth0")
        node1.ip("addr add 192.0.2.1/24 dev eth0")
        node2.ip("addr add 192.0.2.2/24 dev eth0")
        for node, pod in ((node1, pod1), (node2, pod2)):
            veth(node, "lxc1", pod, "eth0")
        packet = frame(Family.IPV4, ip_packet(Family.IPV4, 100))
        for space in spaces:
            send_frames(space, [packet] * N)
        scopes: dict[str, dict[str, Scope]] = {}
        with contextlib.ExitStack() as stack:
            for node in (node1, node2):
                rtnetlink = stack.enter_context(
                    contextlib.closing(node.call(Rtnetlink))
                )
                collector = Collector(
                    probes, rtnetlink.links, node.call(own_netns_cookie)
                )
                snapshot = collector.snapshot()
                names = {space.cookie: space.name for space in spaces}
                scopes[node.name] = {
                    names[device.id.netns]: device.scope
                    for device in snapshot.devices
                    if device.id.netns in names
                }
    assert scopes == {
        "node1": {
            "node1": Scope.NODE,
            "pod1": Scope.PODS,
            "node2": Scope.OTHER,
            "pod2": Scope.OTHER,
        },
        "node2": {
            "node1": Scope.OTHER,
            "pod1": Scope.OTHER,
            "node2": Scope.NODE,
            "pod2": Scope.PODS,
        },
    }


def test_forgotten_rows_begin_again(probes: Probes) -> None:
    with quiet_pair() as (client, _):
        packet = frame(Family.IPV4, ip_packet(Family.IPV4, 100))
        send_frames(client, [packet] * N)
        rows = [key for key in probes.read().rows if key.device.netns == client.cookie]
        probes.forget(rows, {key.device for key in rows})
        assert not seen(
            probes, client, Hook.NET_DEV_START_XMIT, Family.IPV4
        ).histogram.count
        send_frames(client, [packet])
        expect(seen(probes, client, Hook.NET_DEV_START_XMIT, Family.IPV4), [100])
