# SPDX-License-Identifier: Apache-2.0
"""Whose device it is, what happens to the dead, and what a failing source does."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from agent.snapshot.collector import (
    GRACE_SECONDS,
    SILENCE_SECONDS,
    UNKNOWN_SECONDS,
    Collector,
)
from agent.snapshot.lately import RECENT_SECONDS
from agent.snapshot.model import (
    SHARED_DEVICE,
    DeviceId,
    Family,
    Hook,
    Link,
    MapEntries,
    RowKey,
    Scope,
)
from agent.snapshot.naming import Naming
from agent.snapshot.sources import Surroundings
from agent.views.exporter import series
from tests.snapshot.fakes import OURS, FakeProbes, lengths, link

XMIT_IPV4 = (Hook.NET_DEV_START_XMIT, Family.IPV4)


class World:
    """A collector over fakes, with a clock that the test moves."""

    def __init__(self) -> None:
        self.probes = FakeProbes()
        self.links: list[Link] = [link(2, "eth0"), link(9, "lxc1")]
        self.links_fail = False
        self.now = 0.0
        self.collector = Collector(
            self.probes,
            self.read_links,
            OURS,
            monotonic=lambda: self.now,
            wall=lambda: 1e9 + self.now,
        )

    def read_links(self) -> list[Link]:
        if self.links_fail:
            raise OSError(105, "no buffer space available")
        return self.links

    def scopes(self) -> dict[int, Scope]:
        devices = self.collector.snapshot().devices
        return {device.id.netns: device.scope for device in devices}


def test_scopes() -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(1))
    world.probes.put(20, 3, lengths(1), peer=DeviceId(OURS, 9))
    world.probes.put(30, 3, lengths(1), peer=DeviceId(31, 9))
    world.probes.put(40, 3, lengths(1))
    assert world.scopes() == {
        OURS: Scope.NODE,
        20: Scope.PODS,
        30: Scope.OTHER,
        40: Scope.OTHER,
    }


def test_the_far_side_of_an_uplink_is_no_pod() -> None:
    """kind: the node's eth0 is a veth, whose peer is a port of the host's bridge."""
    world = World()
    world.links = [link(2, "eth0", in_subnet=True)]
    world.probes.put(20, 3, lengths(1), peer=DeviceId(OURS, 2))
    assert world.scopes() == {20: Scope.OTHER}


def test_a_pod_that_is_gone_leaves_its_counts() -> None:
    world = World()
    world.probes.put(20, 3, lengths(5, 2), peer=DeviceId(OURS, 9))
    assert world.scopes() == {20: Scope.PODS}
    world.links = [link(2, "eth0")]
    world.now = GRACE_SECONDS / 2
    assert world.scopes() == {20: Scope.PODS}
    world.now = 2 * GRACE_SECONDS
    snapshot = world.collector.snapshot()
    assert snapshot.devices == ()
    assert world.probes.reading.rows == {}
    assert world.probes.reading.devices == {}
    assert snapshot.total(Scope.PODS) == {XMIT_IPV4: lengths(5, 2)}


def test_a_device_that_comes_back_adds_to_what_it_had() -> None:
    world = World()
    world.probes.put(40, 3, lengths(5))
    world.collector.snapshot()
    world.now = SILENCE_SECONDS
    world.collector.snapshot()
    world.probes.put(40, 3, lengths(2))
    assert world.collector.snapshot().total(Scope.OTHER) == {XMIT_IPV4: lengths(7)}


def test_counts_never_change_their_series() -> None:
    """A named device goes: what it counted stays under its name, and its place in
    the cap is not given to another.
    """
    world = World()
    world.links = [link(2, "eth0"), link(3, "eth1"), link(4, "eth2")]
    around = Surroundings(naming=Naming(most=2))
    collector = Collector(
        world.probes, world.read_links, OURS, around, monotonic=lambda: world.now
    )
    for ifindex in (2, 3, 4):
        world.probes.put(OURS, ifindex, lengths(ifindex))

    def told() -> dict[str, int]:
        found = series(collector.snapshot())
        return {
            name: sums[XMIT_IPV4].histogram.count for (_, name), sums in found.items()
        }

    before = told()
    assert before == {"eth0": 2, "eth1": 3, "(others)": 4}
    world.links = [link(3, "eth1"), link(4, "eth2")]
    for world.now in (1, GRACE_SECONDS + 1, 3 * GRACE_SECONDS):
        assert told() == before
    assert DeviceId(OURS, 2) not in {key.device for key in world.probes.reading.rows}


def test_a_scope_is_decided_once() -> None:
    world = World()
    world.probes.put(20, 3, lengths(1), peer=DeviceId(OURS, 9))
    assert world.scopes() == {20: Scope.PODS}
    world.links = [link(2, "eth0"), link(9, "lxc1", in_subnet=True)]
    assert world.scopes() == {20: Scope.PODS}


OTHERS = DeviceId(77, 9)


@pytest.mark.parametrize(
    ("first", "then", "scope"),
    [
        (DeviceId(OURS, 9), OTHERS, Scope.PODS),
        (OTHERS, DeviceId(OURS, 9), Scope.OTHER),
        (None, DeviceId(OURS, 9), Scope.OTHER),
        (DeviceId(OURS, 9), None, Scope.PODS),
    ],
    ids=str,
)
def test_a_peer_that_moves_takes_no_counts_along(
    first: DeviceId | None, then: DeviceId | None, scope: Scope
) -> None:
    """Its next row introduces it anew: a CNI moves the host's end late."""
    world = World()
    world.probes.put(20, 3, lengths(1000), peer=first)
    assert world.scopes() == {20: scope}
    world.probes.put(20, 3, lengths(5), family=Family.IPV6, peer=then)
    assert world.scopes() == {20: scope}
    assert XMIT_IPV4 in world.collector.snapshot().total(scope)


def test_a_peer_that_has_left_is_nobody_elses() -> None:
    """Its ifindex is that of a pod here, and its device ends in silence."""
    world = World()
    world.probes.put(20, 3, lengths(1000), peer=DeviceId(OURS, 9))
    assert world.scopes() == {20: Scope.PODS}
    world.probes.put(20, 3, lengths(5), family=Family.IPV6, peer=OTHERS)
    world.probes.put(21, 3, lengths(1000), peer=DeviceId(OURS, 9))
    moved, stays = world.collector.snapshot().devices
    assert moved.device
    assert moved.device.peer is None
    assert stays.device
    assert stays.device.peer == DeviceId(OURS, 9)
    world.now = SILENCE_SECONDS
    assert world.collector.snapshot().devices == (stays,)


def test_a_device_that_comes_back_is_judged_anew() -> None:
    world = World()
    world.probes.put(20, 3, lengths(1))
    assert world.scopes() == {20: Scope.OTHER}
    world.now = SILENCE_SECONDS
    assert world.scopes() == {}
    world.probes.put(20, 3, lengths(1), peer=DeviceId(OURS, 9))
    assert world.scopes() == {20: Scope.PODS}


def test_an_uplink_whose_link_was_not_there_yet() -> None:
    """Whatever it was taken for, it stays."""
    world = World()
    world.links = []
    world.probes.put(20, 3, lengths(1), peer=DeviceId(OURS, 2))
    first = world.scopes()
    world.links = [link(2, "eth0", in_subnet=True)]
    assert world.scopes() == first


def test_an_old_reading_retires_nobody() -> None:
    world = World()
    world.probes.put(40, 3, lengths(5))
    world.collector.snapshot()
    world.probes.failing = True
    world.now = SILENCE_SECONDS
    assert world.collector.snapshot().total(Scope.OTHER) == {XMIT_IPV4: lengths(5)}
    world.probes.failing = False
    assert world.collector.snapshot().total(Scope.OTHER) == {XMIT_IPV4: lengths(5)}


def test_what_was_retired_does_not_come_back_with_an_old_reading() -> None:
    world = World()
    world.probes.put(40, 3, lengths(5))
    world.collector.snapshot()
    world.now = SILENCE_SECONDS
    world.collector.snapshot()
    world.probes.failing = True
    assert world.collector.snapshot().total(Scope.OTHER) == {XMIT_IPV4: lengths(5)}


def test_a_device_that_nobody_knows_yet_is_left_out() -> None:
    """The kernel counts an skb a moment before it tells whose device it was."""
    world = World()
    world.probes.put(20, 3, lengths(1), peer=DeviceId(OURS, 9))
    devices = world.probes.reading.devices
    world.probes.reading = replace(world.probes.reading, devices={})
    assert world.scopes() == {}
    world.probes.reading = replace(world.probes.reading, devices=devices)
    assert world.scopes() == {20: Scope.PODS}


def test_a_device_that_nobody_will_ever_know_is_shown() -> None:
    """It woke between the reading and the end of forget(): its row is there again,
    and is introduced no more.
    """
    world = World()
    world.probes.put(40, 3, lengths(5))
    assert world.scopes() == {40: Scope.OTHER}
    forget = world.probes.forget

    def late(rows: Iterable[RowKey], devices: Iterable[DeviceId]) -> None:
        forget(rows, devices)
        world.probes.put(40, 3, lengths(1))
        world.probes.reading = replace(world.probes.reading, devices={})

    world.probes.forget = late  # type: ignore[method-assign]
    for world.now in (SILENCE_SECONDS, SILENCE_SECONDS + 1):
        assert world.scopes() == {}
    world.probes.failing = True  # an old reading is no second look
    world.now += UNKNOWN_SECONDS
    assert world.scopes() == {}
    world.probes.failing = False
    (device,) = world.collector.snapshot().devices
    assert (device.name, device.scope) == ("ifindex:3", Scope.OTHER)
    # Another of its rows introduces it after all: what is told stays told.
    world.probes.put(40, 3, lengths(2), family=Family.IPV6, peer=DeviceId(OURS, 9))
    total = world.collector.snapshot().total(Scope.OTHER)
    assert total[XMIT_IPV4] == lengths(6)


def test_what_happened_lately() -> None:
    world = World()
    for second in range(0, 100, 10):
        world.now = second
        world.probes.put(OURS, 2, lengths(second))
        recent = world.collector.snapshot().recent
    assert recent.seconds == RECENT_SECONDS
    assert [each.histogram.count for each in recent.rows.values()] == [30]

    def wait(seconds: float) -> None:
        world.now += seconds
        world.probes.put(OURS, 2, lengths(97))

    recent = world.collector.observe(5, wait).recent
    assert recent.seconds == 5
    assert [each.histogram.count for each in recent.rows.values()] == [7]


def test_a_counter_that_is_read_late_was_not_all_counted_lately() -> None:
    """It counts since the node booted."""
    world = World()
    answers = iter((None, 123_456, 123_459))

    def too_big() -> int:
        if (answer := next(answers)) is None:
            raise OSError(24, "too many open files")
        return answer

    collector = Collector(
        *(world.probes, world.read_links, OURS, Surroundings(ip6_too_big=too_big)),
        monotonic=lambda: world.now,
    )
    told = []
    for world.now in (0, 5, 2 * RECENT_SECONDS):
        told.append(collector.snapshot().recent.ip6_too_big)
    assert told == [0, 0, 3]


def test_a_closed_collector_says_so() -> None:
    world = World()
    world.collector.close()
    with pytest.raises(OSError, match="ending"):
        world.collector.snapshot()


def test_a_device_that_was_moved_brings_its_counters_along() -> None:
    world = World()
    world.collector.snapshot()
    world.links = [link(5, "veth5", tx=1_000_000)]
    world.collector.snapshot()
    world.links = [link(5, "veth5", tx=1_010_140)]
    world.probes.put(OURS, 5, lengths(10))
    assert world.collector.snapshot().coverage["veth5", "tx"].ratio == 1.0


def test_what_still_counts_or_still_stands_is_kept() -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(1))
    world.probes.put(40, 3, lengths(1))
    for minute in range(30):
        world.now = 60.0 * minute
        world.probes.put(40, 3, lengths(1 + minute))
        assert len(world.collector.snapshot().devices) == 2


def test_a_map_that_fills_up_loses_its_patience() -> None:
    world = World()
    world.probes.put(40, 3, lengths(1))
    world.probes.put(41, 3, lengths(1))
    world.collector.snapshot()
    world.now = GRACE_SECONDS
    world.probes.put(42, 3, lengths(1))
    maps = {"lengths": MapEntries(3, 1000), "foreign_devices": MapEntries(3, 5)}
    world.probes.reading = replace(world.probes.reading, maps=maps)
    assert set(world.scopes()) == {42}


def test_the_row_that_foreign_devices_share_is_never_dropped() -> None:
    """It is nobody's device, and not waited for as one that is not introduced yet."""
    world = World()
    world.probes.put(SHARED_DEVICE.netns, SHARED_DEVICE.ifindex, lengths(7))
    world.probes.reading = replace(world.probes.reading, devices={})
    world.collector.snapshot()
    world.now = 2 * SILENCE_SECONDS
    (device,) = world.collector.snapshot().devices
    assert (device.id, device.scope) == (SHARED_DEVICE, Scope.OTHER)
    assert (device.name, device.device) == ("(many devices)", None)
    assert world.probes.reading.rows


def test_a_source_that_fails_keeps_its_last_answer() -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(1))
    world.collector.snapshot()
    world.links_fail = world.probes.failing = True
    world.now = 10 * SILENCE_SECONDS
    snapshot = world.collector.snapshot()
    assert len(snapshot.devices) == 1
    assert not snapshot.sources["links"].up
    assert snapshot.sources["probes"].errors == 1
    world.links_fail = world.probes.failing = False
    assert world.collector.snapshot().sources["links"].up


def test_no_snapshot_before_the_first_reading() -> None:
    world = World()
    world.probes.failing = True
    with pytest.raises(OSError, match="input/output"):
        world.collector.snapshot()


def test_coverage_counts_from_the_first_look() -> None:
    """10 skbs of 1,000 bytes with 14 of link header, of 20,280 that the link saw;
    what both had counted before does not matter."""
    world = World()
    world.links = [link(2, "eth0", tx=5_000)]
    world.probes.put(OURS, 2, lengths(3))
    assert world.collector.snapshot().coverage == {}
    world.links = [link(2, "eth0", tx=25_280)]
    world.probes.put(OURS, 2, lengths(13))
    coverage = world.collector.snapshot().coverage
    assert set(coverage) == {("eth0", "tx")}
    assert coverage["eth0", "tx"].ratio == 0.5


def test_a_change_of_a_source_is_logged_once() -> None:
    world = World()
    world.collector.snapshot()
    with capture_logs() as logs:
        for world.links_fail in (True, True, False, False):
            world.collector.snapshot()
    said = [(line["event"], line["source"]) for line in logs]
    assert said == [("source failed", "links"), ("source is back", "links")]


@pytest.mark.parametrize("mute", ["links", "probes"])
def test_coverage_of_two_moments_is_none(mute: str) -> None:
    """A source that does not answer holds nothing against the other."""
    world = World()
    for count in (3, 13):
        world.links = [link(2, "eth0", tx=1014 * count)]
        world.probes.put(OURS, 2, lengths(count))
        before = world.collector.snapshot().coverage
    assert before["eth0", "tx"].ratio == 1.0
    world.links_fail, world.probes.failing = mute == "links", mute == "probes"
    world.links = [link(2, "eth0", tx=1014 * 2003)]
    world.probes.put(OURS, 2, lengths(2003))
    assert world.collector.snapshot().coverage == before
    world.links_fail = world.probes.failing = False
    assert world.collector.snapshot().coverage["eth0", "tx"].ratio == 1.0
    assert world.collector.snapshot().coverage != before
