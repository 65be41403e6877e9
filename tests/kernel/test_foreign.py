# SPDX-License-Identifier: Apache-2.0
"""Whatever other namespaces hold, the node's own devices and its pods find rows."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest

from agent.kernel.links import Rtnetlink
from agent.kernel.probes import Probes
from agent.lab.netns import Namespace, namespaces, veth, wait_until
from agent.snapshot.collector import Collector
from agent.snapshot.model import SHARED_DEVICE, DeviceId, Family, Hook, Scope
from tests.kernel.frames import (
    N,
    frame,
    gso_frame,
    ip_packet,
    packet_socket,
    send_frames,
)
from tests.kernel.nodes import FAMILIES, ifindex_of
from tests.stand import seen, write_sysctl

DEVICES = 2000  # with two families: more rows than MAX_ROWS
MAX_ROWS = 3000
SENT, GOT, QUEUED = Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB, Hook.NET_DEV_QUEUE
HOOKS = [SENT, GOT, QUEUED]
PACKETS = [frame(family, ip_packet(family, 100)) for family in FAMILIES]


def add_bridges(space: Namespace, number: int) -> None:
    """Without ports: they drop what they are sent."""
    write_sysctl(space, "ipv6/conf/default/disable_ipv6", "1")
    space.ip(
        *(f"link add br{i} type bridge mcast_snooping 0" for i in range(number)),
        *(f"link set br{i} up" for i in range(number)),
    )


def send(space: Namespace, devices: range, frames: list[bytes]) -> None:
    def inside() -> None:
        with packet_socket() as raw:
            for number in devices:
                for each in frames:
                    raw.sendto(each, (f"br{number}", 0))

    space.call(inside)


def counts(probes: Probes, netns: int, hook: Hook = SENT) -> Counter[int]:
    """Skbs of a namespace by ifindex."""
    found: Counter[int] = Counter()
    for key, row in probes.read().rows.items():
        if (key.device.netns, key.hook) == (netns, hook):
            found[key.device.ifindex] += row.lengths.histogram.count
    return found


@pytest.fixture(scope="module")
def crowd() -> Iterator[Namespace]:
    with namespaces("crowd") as (space,):
        add_bridges(space, DEVICES)
        yield space


def test_a_crowd_of_foreign_devices_leaves_room_for_ours(crowd: Namespace) -> None:
    """An uplink and a pod that come after it are counted to the last packet, and so
    is the crowd: together. What queues big packets still has rows of its own."""
    with contextlib.ExitStack() as stack:
        node, pod, world = stack.enter_context(namespaces("node", "pod", "world"))
        for space in (node, pod, world):
            write_sysctl(space, "ipv6/conf/default/disable_ipv6", "1")
        probes = stack.enter_context(
            Probes.load(HOOKS, own_netns=node.cookie, MAX_ROWS=MAX_ROWS)
        )
        send(crowd, range(DEVICES), PACKETS)
        reading = probes.read()
        lost = sum(reading.unrecorded.values())
        single, shared = counts(probes, crowd.cookie), counts(probes, 0)
        assert set(single.values()) <= {1, 2}
        assert 0 < len(single) <= reading.maps["foreign_devices"].limit < DEVICES
        # Others on this machine may share that row, too.
        assert single.total() + shared.total() >= 2 * DEVICES - lost
        assert reading.maps["lengths"].used < MAX_ROWS
        assert reading.unrecorded["map_full"] == 0

        veth(node, "eth0", world, "eth0")
        node.ip("addr add 192.0.2.1/24 dev eth0")  # an uplink: the world is no pod
        veth(node, "lxc1", pod, "eth0")
        for space, device in ((node, "eth0"), (pod, "eth0"), (node, "lxc1")):
            send_frames(space, PACKETS * N, device)
        for family in FAMILIES:
            wait_until(
                lambda family=family: (  # type: ignore[misc]
                    seen(probes, node, GOT, family, "lxc1").histogram.count >= N
                ),
                "the pod's packets",
            )
            for space, device in ((node, "eth0"), (pod, "eth0"), (node, "lxc1")):
                lengths = seen(probes, space, SENT, family, device)
                assert lengths.histogram.count == N, (space.name, device)
            assert seen(probes, node, GOT, family, "lxc1").histogram.count == N
            assert seen(probes, pod, GOT, family).histogram.count == N
        rtnetlink = stack.enter_context(contextlib.closing(node.call(Rtnetlink)))
        collector = Collector(probes, rtnetlink.links, node.cookie)
        scopes = {device.id: device.scope for device in collector.snapshot().devices}
        assert scopes[DeviceId(pod.cookie, ifindex_of(pod, "eth0"))] is Scope.PODS
        assert scopes[SHARED_DEVICE] is Scope.OTHER

        last = ifindex_of(crowd, f"br{DEVICES - 1}")
        assert last not in single
        big = gso_frame(Family.IPV4, 66_000, 60_000)
        send(crowd, range(DEVICES - 1, DEVICES), [big] * N)
        assert counts(probes, crowd.cookie, QUEUED)[last] == N
        assert counts(probes, crowd.cookie)[last] == 2 * N  # the two parts of each


def test_a_place_that_is_given_up_is_another_s() -> None:
    with namespaces("node", "crowd") as (node, crowd):
        add_bridges(crowd, 12)
        with Probes.load(
            [SENT],
            own_netns=node.cookie,
            MAX_FOREIGN_DEVICES=8,
            MAX_FOREIGN_BIG_DEVICES=1,
        ) as probes:

            def all_taken() -> bool:
                """By ours, and by whoever else is on this machine."""
                send(crowd, range(8), PACKETS)
                entries = probes.read().maps["foreign_devices"]
                return entries.used == entries.limit == 8

            wait_until(all_taken, "the places to be taken")
            late = {ifindex_of(crowd, f"br{number}") for number in range(8, 12)}
            send(crowd, range(8, 12), PACKETS)
            assert not late & set(counts(probes, crowd.cookie))
            reading = probes.read()
            probes.forget(reading.rows, reading.devices)
            assert probes.read().maps["foreign_devices"].used == 0

            def one_has_it() -> bool:
                send(crowd, range(8, 12), PACKETS)
                return bool(late & set(counts(probes, crowd.cookie)))

            wait_until(one_has_it, "a late one to have a row")
