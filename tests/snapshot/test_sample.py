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
        ({"schema": "bigtcp.snapshot/v2"}, "schema: invalid .* 'bigtcp.snapshot/v2'"),
        ({"edges": [65536]}, r"counters\[0\]\.slots: 1 edges need 2 slots"),
        ({"edges": [1500]}, "edges: they do not ascend, or leave out 65536"),
        ({"edges": [65536, 1500]}, "edges: they do not ascend"),
        ({"edges": [1500.0, 65536]}, r"edges\[0\]: expected `int`, got `float`"),
        ({"taken": "5"}, "taken: expected `float`, got `str`"),
        ({"started": True}, "started: expected `float`, got `bool`"),
        ({"uptime": None}, "uptime: expected `float`, got `null`"),
        ({"taken": float("nan")}, "taken: expected `float` >= 0"),
        ({"counters": 7}, "counters: expected `array`, got `int`"),
        ({"families": {}}, "families.ipv4: this member is missing"),
        ({"kernel": None}, "kernel: expected `str`, got `null`"),
        ({"cilium": {}}, "cilium.read: this member is missing"),
        ({"findings": [{}]}, r"findings\[0\]\.id: this member is missing"),
        ({"findings": None}, "findings: expected `array`, got `null`"),
        ({"taken": 1e300}, "taken: expected `float` < 100000000000"),
        ({"edges": [1500, float("inf")]}, r"edges\[1\]: expected `int`, got `float`"),
        ({"taken": 10**400}, "taken: number out of range"),
        ({"pods": [{}]}, r"pods\[0\]\.name: this member is missing"),
    ],
)
def test_what_is_no_picture(change: dict[str, object], why: str) -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    with pytest.raises(ValueError, match=f"^{why}"):
        Sample.of({**world.sample().picture, **change})
    with pytest.raises(ValueError, match="Expected `object`, got `array`"):
        Sample.of([])


@pytest.mark.parametrize("count", [-1, 1.5, 10**400, float("inf"), True, None])
def test_what_is_no_count(count: object) -> None:
    world = World()
    world.probes.put(OURS, 2, lengths(5))
    picture = world.sample().picture
    row = picture["counters"][0] | {"bytes": count}
    with pytest.raises(ValueError, match=r"^counters\[0\]\.bytes: expected `int`"):
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
