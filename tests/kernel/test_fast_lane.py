# SPDX-License-Identifier: Apache-2.0
"""Rows that share a slot of the fast lane: no count is lost, none comes twice."""

import contextlib
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.kernel.probes import Probes
from agent.lab.netns import Namespace, namespaces, wait_until
from agent.snapshot.model import Family, Hook, Lengths, RowKey
from tests.kernel.test_counts import ethernet, ip_packet
from tests.stand import write_sysctl

DEVICES = 300  # with two families: rows for more than twice the slots
ROUNDS = 10


@pytest.fixture(scope="module")
def restless() -> Iterator[Probes]:
    """Probes whose rows give way as soon as the clock has ticked."""
    with Probes.load([Hook.NET_DEV_START_XMIT], IDLE_JIFFIES=1) as probes:
        yield probes


@pytest.fixture
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


def send(namespace: Namespace, devices: int) -> None:
    """A packet of each family to each device, all from one CPU."""

    def inside() -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of this thread
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            for number in range(devices):
                for family in (Family.IPV4, Family.IPV6):
                    frame = ethernet(family, ip_packet(family, 100 + number))
                    raw.sendto(frame, (f"br{number}", 0))

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
        send(namespace, DEVICES)
        rows = counts(probes, namespace)
        return rows if len(rows) == 2 * DEVICES else {}

    return wait_until(complete, "the rows", 30)


def test_rows_that_take_turns_are_counted_exactly(
    restless: Probes, bridges: Namespace
) -> None:
    """Also for who reads meanwhile: nothing ever goes back."""
    before = all_rows(restless, bridges)
    last = dict(before)
    with ThreadPoolExecutor(1) as sender:
        for number in range(1, ROUNDS + 1):
            sending = sender.submit(send, bridges, DEVICES)
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
                assert lengths.histogram.count == lengths.segments == count
                assert lengths.histogram.bytes == count * lengths.longest


def test_what_was_forgotten_stays_so_while_it_stands_on_the_fast_lane(
    restless: Probes, bridges: Namespace
) -> None:
    send(bridges, 1)
    keys = list(counts(restless, bridges))
    restless.forget(keys, {key.device for key in keys})
    assert not counts(restless, bridges)
    send(bridges, 1)  # it was only silent
    assert counts(restless, bridges) == dict.fromkeys(keys, 1)
    restless.forget(keys, {key.device for key in keys})
    before = all_rows(restless, bridges)
    for number in range(1, ROUNDS + 1):  # until others have taken its slots
        send(bridges, DEVICES)
        assert counts(restless, bridges) == {
            key: count + number for key, count in before.items()
        }


def test_a_full_map_leaves_no_device_behind(bridges: Namespace) -> None:
    """Who cannot be recorded is counted, and takes no room."""
    with Probes.load([Hook.NET_DEV_START_XMIT], MAX_ROWS=16) as small:
        send(bridges, 20)
        reading = small.read()
        assert len(reading.rows) <= 16
        assert {key.device for key in reading.rows} == set(reading.devices)
        # Of 40 rows that are wanted here; others may want some of the 16, too.
        assert reading.unrecorded["map_full"] >= 2 * 20 - 16
