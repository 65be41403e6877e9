# SPDX-License-Identifier: Apache-2.0
"""Known packets from pod to pod: each pod's row holds exactly these."""

import contextlib
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from agent.kernel.links import Rtnetlink
from agent.kernel.probes import Probes
from agent.kernel.tables import are_pods
from agent.lab.netns import namespaces, wait_until
from agent.snapshot.collector import Collector
from agent.snapshot.model import OTHER_PODS, Family, Hook, Lengths
from agent.snapshot.pods import PodName, PodTraffic, traffic_of
from tests.kernel.frames import N, frame, ip_packet, send_frames
from tests.kernel.nodes import (
    FAMILIES,
    Node,
    Pod,
    ebpf_host_routing,
    send,
    transfer,
    two_nodes,
)
from tests.stand import at_rest, quiet_pair, seen

HOOKS = [Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB]
SIZES = [600, 1500, 1501, 4096, 4097, 8000, 8992] * 3
BIG = 196608

VM = os.environ.get("BIGTCP_VM", "")  # see tests/vm/run

World = tuple[Node, Node, Pod, Pod, Pod]


# netkit is new in 6.7, and a module that not every machine has.
PAIRS = ["veth", *(["netkit l2", "netkit l3"] if VM == "6.12" else [])]
ROUTINGS = ["legacy routing", *(["eBPF host routing"] if VM != "6.1" else [])]  # TCX


@pytest.fixture(scope="module", params=ROUTINGS)
def routing(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=PAIRS)
def world(request: pytest.FixtureRequest, routing: str) -> Iterator[World]:
    with two_nodes(request.param) as nodes, contextlib.ExitStack() as stack:
        if routing == "eBPF host routing":
            stack.enter_context(ebpf_host_routing(*nodes[:2]))
        yield nodes


@contextlib.contextmanager
def counting(node: Node, **defines: int) -> Iterator[Probes]:
    with Probes.load(HOOKS, pods_of=node.space.cookie, **defines) as probes:
        assert probes.failures == {}
        yield probes


def traffic(probes: Probes, node: Node) -> dict[int, PodTraffic]:
    """What a collector in the node says of its pods, by their host sides."""
    with contextlib.closing(node.space.call(Rtnetlink)) as rtnetlink:
        snapshot = Collector(probes, rtnetlink.links, node.space.cookie).snapshot()
    names = {pod.host: PodName("default", pod.space.name) for pod in node.pods}
    return {pod.ifindex: pod for pod in traffic_of(snapshot, names)}


def expect(lengths: Lengths | None, sizes: list[int]) -> None:
    """Exactly these, apart from what is no longer than 512 bytes."""
    if not sizes:
        assert lengths is None or not lengths.histogram.above(512)
        return
    assert lengths is not None
    edges = lengths.histogram.edges
    slots = [0] * (len(edges) + 1)
    for size in sizes:
        slots[bisect_left(edges, size)] += 1
    assert list(lengths.histogram.slots[2:]) == slots[2:]
    assert lengths.longest == max(sizes)


def received(probes: Probes, pod: Pod, family: Family) -> Lengths | None:
    return probes.read().pods_received.get((pod.host, family))


def unrecorded(*probes: Probes) -> list[int]:
    return [sum(each.read().unrecorded.values()) for each in probes]


def rows_are_there(
    ways: Iterable[tuple[Pod, Pod]], family: Family, *probes: Probes
) -> None:
    """Of who sends and who receives. A new row may find no memory, which is told:
    then once more.
    """

    def heard() -> bool:
        before = unrecorded(*probes)
        for source, target in ways:
            send(source, target, family, SIZES[:1])
        return unrecorded(*probes) == before

    wait_until(heard, "every row to be there")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_pod_and_direction_has_exactly_its_packets(
    world: World, family: Family
) -> None:
    """To a pod of the node, to one of the other node, and from it; seen by both
    nodes' agents, of which each knows only its own pods."""
    node1, node2, a, b, c = world
    to_b, to_c, from_c = SIZES, SIZES * 2, SIZES * 3
    with counting(node1) as one, counting(node2) as two:
        one.set_pod_addresses(node1.pod_addresses)
        two.set_pod_addresses(node2.pod_addresses)

        def look() -> list[tuple[Lengths | None, ...]]:
            """Of each pod what it sent and received, and what came by address."""
            here, there = traffic(one, node1), traffic(two, node2)
            return [
                (
                    told[pod.host].sent.get(family),
                    told[pod.host].received.get(family),
                    received(probes, pod, family),
                )
                for pod, told, probes in (
                    (a, here, one),
                    (b, here, one),
                    (c, there, two),
                )
            ]

        rows_are_there(((a, b), (a, c), (c, a)), family, one, two)
        before, missed = look(), unrecorded(one, two)
        send(a, b, family, to_b)
        send(a, c, family, to_c)
        send(c, a, family, from_c)
        for now, then, sent, got in zip(
            look(), before, (to_b + to_c, [], from_c), (from_c, to_b, to_c), strict=True
        ):
            for new, old, sizes in zip(now, then, (sent, got, got), strict=True):
                expect(new.since(old) if new and old else new, sizes)
            # By address there is nothing but what was sent to it: the bytes too.
            assert now[2]
            assert then[2]
            lengths = now[2].since(then[2])
            assert lengths.histogram.bytes == sum(got)
            assert lengths.segments == len(got)
        assert unrecorded(one, two) == missed


def test_ebpf_host_routing_leaves_no_receive_event_of_the_pod() -> None:
    """The reason for counting by address; under legacy routing there is one."""
    with two_nodes() as (node1, node2, _, _, c), counting(node2) as probes:
        for routing, expected in (
            (contextlib.nullcontext(), len(SIZES)),
            (ebpf_host_routing(node1, node2), 0),
        ):
            before = seen(probes, c.space, Hook.NETIF_RECEIVE_SKB, Family.IPV4)
            with routing:
                send(node1.pods[0], c, Family.IPV4, SIZES)
            after = seen(probes, c.space, Hook.NETIF_RECEIVE_SKB, Family.IPV4)
            assert after.since(before).histogram.count == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize("bridged", [False, True])
def test_once_behind_vlan_tags_and_a_bridge(
    family: Family, tags: int, *, bridged: bool
) -> None:
    """A port and its bridge both receive the packet: it counts once. What is sent
    to somebody else does not."""
    pod, other = (
        ("10.9.9.9", "10.9.9.8") if family is Family.IPV4 else ("fd00::9", "fd00::8")
    )
    with quiet_pair() as (client, node):
        if bridged:
            node.ip(
                "link add br0 type bridge mcast_snooping 0",
                "link set br0 up",
                "link set eth0 master br0",
            )

            def forwards() -> bool:
                return "state forwarding" in node.run(
                    "ip", "-d", "link", "show", "eth0"
                )

            wait_until(forwards, "the bridge's port")
        load = Probes.load(HOOKS, pods_of=node.cookie)
        with load as probes:
            probes.set_pod_addresses({pod: 99})
            packets = [ip_packet(family, 700, pod)] * N
            packets.append(ip_packet(family, 700, other))
            send_frames(client, [frame(family, packet, tags) for packet in packets])

            def arrived() -> bool:
                last = "br0" if bridged and not tags else "eth0"
                got = seen(probes, node, Hook.NETIF_RECEIVE_SKB, family, last)
                return got.histogram.count == N + 1

            wait_until(arrived, "the frames to arrive")
            reading = probes.read()
    assert reading.pods_received.keys() == {(99, family)}
    assert reading.pods_received[99, family].histogram.count == N
    assert reading.pods_received[99, family].histogram.bytes == N * 700


def test_an_address_that_cannot_be_read_is_told() -> None:
    """AF_PACKET puts what is longer than a page into fragments, headers and all."""
    with quiet_pair(mtu=9000) as (client, node):
        load = Probes.load(HOOKS, pods_of=node.cookie)
        with load as probes:
            probes.set_pod_addresses({"10.9.9.9": 99})
            packet = ip_packet(Family.IPV4, 8000, "10.9.9.9")
            send_frames(client, [frame(Family.IPV4, packet)] * N)

            def told() -> bool:
                return probes.read().unrecorded["no_address"] == N

            wait_until(told, "the packets to be told")
            assert probes.read().pods_received == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_big_tcp_arrives_as_it_was_sent(world: World, family: Family) -> None:
    """IPv6 with its hop-by-hop header (before Linux 7.0): as long as when sent."""
    node1, node2, a, _, c = world
    for node in (node1, node2):
        node.space.set_sizes("eth0", BIG)
        for pod in node.pods:
            pod.space.set_sizes("eth0", BIG)
            node.space.set_sizes(pod.device, BIG)
    with counting(node1) as one, counting(node2) as two:
        one.set_pod_addresses(node1.pod_addresses)
        two.set_pod_addresses(node2.pod_addresses)
        rows_are_there(((a, c), (c, a)), family, one, two)

        def look() -> tuple[Lengths, Lengths]:
            return (
                traffic(one, node1)[a.host].sent[family],
                traffic(two, node2)[c.host].received[family],
            )

        before = look()
        transfer(a, c, family, 16 << 20)
        sent, got = (
            now.since(then) for now, then in zip(at_rest(look), before, strict=True)
        )
    can_be_big = family is Family.IPV6 or VM != "6.1"  # BIG TCP for IPv4: 6.3
    assert (got.longest > 65536) is can_be_big
    assert got.histogram.above(65536) == sent.histogram.above(65536)
    assert got.histogram.slots[2:] == sent.histogram.slots[2:]
    assert got.histogram.bytes > 16 << 20


def test_a_row_of_a_pod_is_no_device(world: World) -> None:
    node1, _, a, b, _ = world
    with counting(node1) as probes:
        probes.set_pod_addresses(node1.pod_addresses)
        send(a, b, Family.IPV4, SIZES)
        reading = probes.read()
        assert reading.pods_received.keys() == {(b.host, Family.IPV4)}
        mine = {key.device for key in reading.rows}
        assert mine <= reading.devices.keys()


def test_an_address_moves_and_pods_go(world: World) -> None:
    """Nothing moves with an address, and who comes back begins at zero."""
    node1, _, a, b, _ = world
    address = b.addresses[Family.IPV4]
    with counting(node1, IDLE_JIFFIES=1) as probes:
        probes.set_pod_addresses({address: b.host})
        send(a, b, Family.IPV4, SIZES)
        probes.set_pod_addresses({address: 4242})
        send(a, b, Family.IPV4, SIZES * 2)
        reading = probes.read()
        assert reading.pods_received.keys() == {(4242, Family.IPV4)}
        expect(reading.pods_received[4242, Family.IPV4], SIZES * 2)
        probes.set_pod_addresses({})
        for _ in range(3):
            send(a, b, Family.IPV4, SIZES)
            assert probes.read().pods_received == {}

        def deleted() -> bool:
            probes.read()
            keys, _ = probes._lengths.read()
            return not are_pods(keys, probes._contract).any()

        wait_until(deleted, "the rows of the dead to be deleted")
        probes.set_pod_addresses({address: b.host})  # the same again: from zero
        assert probes.read().pods_received == {}
        send(a, b, Family.IPV4, SIZES)
        reading = probes.read()
        expect(reading.pods_received[b.host, Family.IPV4], SIZES)


def test_above_the_cap_pods_are_one_row(world: World) -> None:
    """The first keep theirs, also when one comes that would stand before them."""
    node1, _, a, b, _ = world
    a4, b4 = a.addresses[Family.IPV4], b.addresses[Family.IPV4]
    with counting(node1) as probes:
        probes.set_pod_addresses({b4: b.host}, most=1)
        probes.set_pod_addresses({a4: a.host, b4: b.host}, most=1)
        send(a, b, Family.IPV4, SIZES)
        send(b, a, Family.IPV4, SIZES * 2)
        found = probes.read().pods_received
        assert found.keys() == {(b.host, Family.IPV4), (OTHER_PODS, Family.IPV4)}
        expect(found[b.host, Family.IPV4], SIZES)
        expect(found[OTHER_PODS, Family.IPV4], SIZES * 2)
        probes.set_pod_addresses({a4: a.host}, most=1)  # a place is free
        send(b, a, Family.IPV4, SIZES)
        found = probes.read().pods_received
        expect(found[a.host, Family.IPV4], SIZES)
        expect(found[OTHER_PODS, Family.IPV4], SIZES * 2)


def test_addresses_without_room_are_told() -> None:
    with namespaces("node") as (space,):
        load = partial(Probes.load, HOOKS, pods_of=space.cookie)
        with load(MAX_POD_ADDRESSES=4) as probes:
            many = {f"10.0.0.{number}": number for number in range(1, 8)}
            assert probes.set_pod_addresses(many) == len(many) - 4
            assert probes.set_pod_addresses({"10.0.0.9": 9}) == 0
            with pytest.raises(ValueError, match="nowhere"):
                probes.set_pod_addresses({"nowhere": 1})


def test_pods_must_be_asked_for(probes: Probes) -> None:
    with pytest.raises(ValueError, match="pods_of"):
        probes.set_pod_addresses({"10.0.0.1": 1})
    assert probes.read().pods_received == {}
