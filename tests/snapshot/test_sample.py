# SPDX-License-Identifier: Apache-2.0
"""From picture to picture: what passed, whose it was, and what a restart does."""

import json
from dataclasses import replace

import pytest

from agent.snapshot.collector import Collector
from agent.snapshot.model import DeviceId, Family, Hook
from agent.snapshot.sample import Line, Sample
from agent.views.picture import picture
from tests.snapshot.fakes import OURS, FakeProbes, lengths, link


class World:
    """An agent, whose JSON is read again."""

    def __init__(self) -> None:
        self.now = 1e9
        self.probes = FakeProbes()
        self.start()

    def start(self) -> None:
        links = [
            link(2, "eth0"),
            replace(link(9, "lxc1"), kind="veth", netnsid=0),
        ]
        self.collector = Collector(
            self.probes,
            lambda: links,
            OURS,
            wall=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def sample(self) -> Sample:
        told = picture(self.collector.snapshot())
        return Sample.of(json.loads(json.dumps(told)))


def only(lines: dict[object, Line]) -> Line:
    (line,) = lines.values()
    return line


def test_rates() -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    before = world.sample()
    world.now += 2
    world.probes.put(OURS, 2, lengths(5, 3))
    period = world.sample().since(before)
    line = only(period.lines)  # type: ignore[arg-type]
    assert (line.name, line.limit) == ("eth0", 65536)
    assert line.lengths.histogram.count == 3
    assert period.per_second(line.lengths.histogram.bytes) == 150_000
    assert line.lengths.histogram.big_share == 1


def test_the_same_moment_has_no_rate() -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    sample = world.sample()
    assert sample.since(sample).per_second(5) == 0


def test_a_moment_has_no_rate() -> None:
    """It would be so high that it is no number any more."""
    sample = World().sample()
    before = replace(sample, uptime=0.0)
    for seconds, told in ((5e-324, 0.0), (0.0009, 0.0), (0.001, 0.001)):
        assert replace(sample, uptime=seconds).since(before).seconds == told


def test_after_a_restart_there_is_no_rate() -> None:
    """What it counted may be older than its age: that began when it was first asked.
    Nor does it matter that it has by now counted more than the one before.
    """
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    before = world.sample()
    world.now += 60
    world.start()
    world.now += 0.1
    world.probes.put(OURS, 2, lengths(8))
    first = world.sample()
    period = first.since(before)
    count = only(period.lines).lengths.histogram.count  # type: ignore[arg-type]
    assert (period.seconds, period.per_second(count)) == (0, 0)
    assert count == 8
    world.now += 2
    world.probes.put(OURS, 2, lengths(14))
    period = world.sample().since(first)
    count = only(period.lines).lengths.histogram.count  # type: ignore[arg-type]
    assert (period.seconds, count) == (2, 6)


def test_periods_add_up() -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(1))
    samples = [world.sample()]
    for seconds, skbs, more in ((2, 4, 0), (3, 4, 7)):
        world.now += seconds
        world.probes.put(OURS, 2, lengths(skbs))
        if more:
            world.probes.put(OURS, 3, lengths(more))
        samples.append(world.sample())
    first, second, third = samples
    total = second.since(first).add(third.since(second))
    counts = {
        line.key.ifindex: line.lengths.histogram.count for line in total.lines.values()
    }
    assert (total.seconds, counts) == (5, {2: 3, 3: 7})


def test_whose_it_is() -> None:
    world = World()
    world.probes.put(20, 3, lengths(1), peer=DeviceId(OURS, 9))
    world.probes.put(30, 3, lengths(1), hook=Hook.NETIF_RECEIVE_SKB)
    names = {line.name for line in world.sample().lines.values()}
    assert names == {"lxc1", "eth0 (netns 4026530030)"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": "bigtcp.snapshot/v2"}, "its schema is 'bigtcp.snapshot/v2'"),
        ({"edges": [65536]}, "1 edges need 2 slots"),
        ({"edges": [1500]}, "edges do not ascend, or leave out 65536"),
        ({"edges": [65536, 1500]}, "edges do not ascend"),
        ({"edges": [1500.0, 65536]}, "1500.0 is no count"),
        ({"taken": "5"}, "'5' is no number"),
        ({"started": True}, "True is no number"),
        ({"uptime": None}, "None is no number"),
        ({"taken": float("nan")}, "its time is no time"),
        ({"counters": 7}, "makes no sense"),
        ({"families": {}}, "makes no sense: families"),
        ({"kernel": None}, "None is no text"),
        ({"cilium": {}}, "'version' is missing"),
        ({"findings": [{}]}, "'id' is missing"),
        ({"findings": None}, "makes no sense"),
        ({"taken": 1e300}, "its time is no time"),
        ({"edges": [1500, float("inf")]}, "makes no sense"),
        ({"taken": 10**400}, "makes no sense"),
        ({"pods": [{}]}, "'ifindex' is missing"),
    ],
)
def test_what_is_no_picture(change: dict[str, object], why: str) -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        Sample.of({**world.sample().picture, **change})
    with pytest.raises(ValueError, match="schema"):
        Sample.of([])


@pytest.mark.parametrize("count", [-1, 1.5, 10**400, float("inf"), True, None])
def test_what_is_no_count(count: object) -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    picture = world.sample().picture
    row = picture["counters"][0] | {"bytes": count}
    with pytest.raises(ValueError, match="is no count"):
        Sample.of({**picture, "counters": [row]})


def test_pods_beyond_the_cap_and_pods_that_are_gone_have_a_name() -> None:
    world = World()
    world.probes.reading = replace(
        world.probes.reading,
        pods_received={(0, Family.IPV4): lengths(1), (77, Family.IPV4): lengths(1)},
    )
    names = {line.name for line in world.sample().lines.values()}
    assert names == {"(others)", "ifindex:77"}


def test_while_nothing_can_be_read_no_time_passes() -> None:
    """And whatever somebody does to the clock."""
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    before = world.sample()
    world.now += 5
    world.probes.failing = True
    assert world.sample().since(before).seconds == 0
    world.now += 5
    world.probes.failing = False
    assert world.sample().since(before).seconds == 10
