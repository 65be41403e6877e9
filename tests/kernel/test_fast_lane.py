# SPDX-License-Identifier: Apache-2.0
"""Rows that share a slot of the fast lane: no count is lost, none comes twice."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.kernel.probes import Probes
from agent.lab.netns import Namespace, namespaces, wait_until
from agent.snapshot.model import Family, Hook, Lengths, RowKey
from tests.kernel.frames import frame, gso_frame, ip_packet, packet_socket
from tests.stand import write_sysctl

DEVICES = 300  # with two families: rows for more than twice the slots
ROUNDS = 10
HOOKS = [Hook.NET_DEV_START_XMIT, Hook.NET_DEV_QUEUE]  # which has only big ones


@pytest.fixture(params=HOOKS)
def restless(request: pytest.FixtureRequest) -> Iterator[Probes]:
    """Probes whose rows give way as soon as the clock has ticked."""
    with Probes.load([request.param], IDLE_JIFFIES=1) as probes:
        yield probes


@pytest.fixture(scope="module")
def bridges() -> Iterator[Namespace]:
    """A namespace with bridges without ports, which drop what they are sent."""
    with namespaces("bridges") as (namespace,):
        write_sysctl(namespace, "ipv6/conf/default/disable_ipv6", "1")
        namespace.ip(
            *(f"link add br{i} type bridge mcast_snooping 0" for i in range(DEVICES)),
            *(f"link set br{i} up" for i in range(DEVICES)),
        )
        yield namespace


def mine(probes: Probes, namespace: Namespace) -> dict[RowKey, Lengths]:
    return {
        key: row.lengths
        for key, row in probes.read().rows.items()
        if key.device.netns == namespace.cookie
    }


def frame_for(probes: Probes, family: Family, number: int) -> bytes:
    """What its hook counts: of two segments where that must be a big one. Linux 6.1
    takes none above 17 pages.
    """
    if Hook.NET_DEV_QUEUE in probes.attached:
        return gso_frame(family, 66_000 + number, 60_000)
    return frame(family, ip_packet(family, 100 + number))


def send(probes: Probes, namespace: Namespace, devices: int) -> None:
    """A packet of each family to each device, all from one CPU."""

    def inside() -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of this thread
        with packet_socket() as raw:
            for number in range(devices):
                for family in (Family.IPV4, Family.IPV6):
                    packet = frame_for(probes, family, number)
                    raw.sendto(packet, (f"br{number}", 0))

    namespace.call(inside)


def counts(probes: Probes, namespace: Namespace) -> dict[RowKey, int]:
    return {
        key: lengths.histogram.count for key, lengths in mine(probes, namespace).items()
    }


def all_rows(probes: Probes, namespace: Namespace) -> dict[RowKey, int]:
    """Counts once every row is there. A burst of new ones may find the kernel's
    allocator empty, which is counted and told (no_memory): then once more.
    """

    def complete() -> dict[RowKey, int]:
        send(probes, namespace, DEVICES)
        rows = counts(probes, namespace)
        return rows if len(rows) == 2 * DEVICES else {}

    return wait_until(complete, "the rows")


def test_rows_that_take_turns_are_counted_exactly(
    restless: Probes, bridges: Namespace
) -> None:
    """Also for who reads meanwhile: nothing ever goes back."""
    before = all_rows(restless, bridges)
    last = dict(before)
    with ThreadPoolExecutor(1) as sender:
        for number in range(1, ROUNDS + 1):
            sending = sender.submit(send, restless, bridges, DEVICES)
            while not sending.done():
                with contextlib.suppress(OSError):  # all move at once: none is told
                    for key, count in counts(restless, bridges).items():
                        assert last[key] <= count <= before[key] + number
                        last[key] = count
            sending.result()
            now = mine(restless, bridges)
            assert now.keys() == before.keys()
            for key, lengths in now.items():
                count = before[key] + number
                assert lengths.histogram.count == count
                assert lengths.histogram.bytes == count * lengths.longest
                big = lengths.longest > 65536
                assert big == (key.hook is Hook.NET_DEV_QUEUE)
                assert lengths.histogram.big_bytes == big * lengths.histogram.bytes
                assert lengths.segments == (2 if big else 1) * count


def test_what_was_forgotten_stays_so_while_it_stands_on_the_fast_lane(
    restless: Probes, bridges: Namespace
) -> None:
    send(restless, bridges, 1)
    keys = list(counts(restless, bridges))
    restless.forget(keys, {key.device for key in keys})
    assert not counts(restless, bridges)
    send(restless, bridges, 1)  # it was only silent
    assert counts(restless, bridges) == dict.fromkeys(keys, 1)
    restless.forget(keys, {key.device for key in keys})
    before = all_rows(restless, bridges)
    for number in range(1, ROUNDS + 1):  # until others have taken its slots
        send(restless, bridges, DEVICES)
        assert counts(restless, bridges) == {
            key: count + number for key, count in before.items()
        }


def test_a_full_map_leaves_no_device_behind(bridges: Namespace) -> None:
    """Who cannot be recorded is counted, and takes no room."""
    with Probes.load([Hook.NET_DEV_START_XMIT], MAX_ROWS=16) as small:
        send(small, bridges, 20)
        reading = small.read()
        assert {key.device for key in reading.rows} == set(reading.devices)
        told = reading.unrecorded
        ours = sum(key.device.netns == bridges.cookie for key in reading.rows)
        assert ours + sum(told.values()) >= 2 * 20
        assert told["map_full"] > 0
