# SPDX-License-Identifier: Apache-2.0
"""Feeds: an agent that dies and comes back, a record that is sought in."""

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AgentError
from agent.inquiry import asked
from agent.lab.netns import wait_until
from agent.record.lines import Recording, Writer
from agent.settings import Cluster
from agent.views.top.feed import Feed, Missed, Seen, Told
from agent.views.traffic import TREND
from agent.watching import Live, LiveFeed, ReplayFeed
from tests.views.top.fakes import BEGAN, FakeAgent, flows, picture

NOWHERE = Cluster("/nonexistent", "", "", "", "", pods=False)


@contextmanager
def running(feed: Feed) -> Iterator["queue.Queue[Told]"]:
    """What it tells, until it is stopped."""
    told: queue.Queue[Told] = queue.Queue()
    feed.start(told.put)
    try:
        yield told
    finally:
        feed.stop()


def seen(told: "queue.Queue[Told]") -> Seen:
    found = told.get(timeout=60)
    assert isinstance(found, Seen)
    return found


def counting() -> Callable[[], dict[str, object]]:
    count = 0

    def answer() -> dict[str, object]:
        nonlocal count
        count += 1
        return picture(count, flows())

    return answer


@contextmanager
def live(agent: FakeAgent, interval: float = 0.2) -> Iterator[LiveFeed]:
    with agent.serving():
        with asked(agent.url, NOWHERE) as who:
            feed = LiveFeed(Live(who, None), interval)
        yield feed


def test_it_asks_again_and_again() -> None:
    with live(FakeAgent(counting())) as feed, running(feed) as told:
        times = [seen(told).samples[0].taken for _ in range(3)]
    assert times == sorted(set(times))


def test_an_agent_that_dies_and_comes_back() -> None:
    agent = FakeAgent(counting())
    with live(agent) as feed:
        pass  # it was there, and is no more
    with running(feed) as told:
        missed = told.get(timeout=60)
        assert isinstance(missed, Missed)
        assert not missed.fatal
        assert missed.error.message.startswith(
            f"the agent at {agent.url} answers no more: "
        )
        with FakeAgent(counting(), agent.port).serving():
            wait_until(lambda: isinstance(told.get(timeout=60), Seen), "the agent")


@pytest.mark.parametrize("change", [{"edges": [1]}, {"counters": 7}, {"schema": "x"}])
def test_an_agent_that_tells_nonsense(change: dict[str, Any]) -> None:
    agent = FakeAgent(counting())
    with live(agent) as feed:
        agent.answer = lambda: picture(1, flows(), **change)
        with running(feed) as told:
            missed = told.get(timeout=60)
    assert isinstance(missed, Missed)
    assert agent.url in missed.error.message


def test_a_pause_asks_nothing() -> None:
    agent = FakeAgent(counting())
    with live(agent) as feed, running(feed) as told:
        seen(told)
        feed.pause()
        assert feed.paused
        while not told.empty():  # one that was on its way
            told.get()
        with pytest.raises(queue.Empty):
            told.get(timeout=0.8)
        feed.pause()
        seen(told)


def test_the_interval() -> None:
    with live(FakeAgent(counting()), 1.5) as feed:
        paces = [feed.pace]
        for step in (1, 1, 1, 1, 1, -1, *[-1] * 8):
            feed.faster(step)
            paces.append(feed.pace)
        assert feed.patience == 62
    times = [each.removeprefix("every ").removesuffix(" s") for each in paces]
    assert times == [
        *("1.5", "1", "0.5", "0.2", "0.2", "0.2", "0.5", "1"),
        *("2", "5", "10", "30", "60", "60", "60"),
    ]


def test_a_feed_that_was_never_started_can_be_stopped() -> None:
    """As where a signal comes before the screen."""
    with live(FakeAgent(counting())) as feed:
        feed.stop()


def test_a_feed_that_is_hung_can_be_stopped() -> None:
    """Whoever quits does not wait for an agent."""
    release = threading.Event()
    agent = FakeAgent(counting())
    with live(agent) as feed:
        agent.answer = lambda: {"released": release.wait(600)}
        with running(feed) as told:
            pass
        release.set()
        feed._thread.join()
    assert told.empty()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two hundred samples, an hour apart in the middle."""
    path = tmp_path / "a.jsonl"
    with Writer(str(path)) as record:
        for second in range(200):
            record.add(picture(second + (3600 if second >= 100 else 0), []))
    return path


def taken(told: Seen) -> float:
    return told.samples[-1].taken - BEGAN


def test_a_replay_is_sought_in(path: Path) -> None:
    with Recording(str(path)) as recording:
        feed = ReplayFeed(recording)
        feed.pause()
        with running(feed) as told:
            first = seen(told)
            assert (first.jumped, taken(first)) == (True, 0)
            assert feed.pace == "x1, 1 of 200"
            for step, at in ((1, 2), (10, 22), (-3, 16), (-99, 0), (999, 199)):
                feed.seek(step)
                found = seen(told)
                assert found.jumped
                assert taken(found) == at + (3600 if at >= 100 else 0)
                assert len(found.samples) == min(at, TREND // 2) + 1
            assert feed.pace == "x1, 200 of 200, the end"
            feed.seek(None)
            assert taken(seen(told)) == 0
            feed.seek(None, end=True)
            assert taken(seen(told)) == 3799


def test_a_replay_goes_as_fast_as_is_asked_for(path: Path) -> None:
    """At x64 the first hundred seconds take less than two; a gap is no hour."""
    with Recording(str(path)) as recording:
        feed = ReplayFeed(recording)
        for _ in range(9):
            feed.faster(1)
        assert feed.pace.startswith("x64, ")
        with running(feed) as told:
            wait_until(lambda: taken(seen(told)) == 3799, "the end")
            assert feed.pace.endswith("the end")
    for _ in range(9):
        feed.faster(-1)
    assert feed.pace.startswith("x1, ")


def test_a_line_that_is_corrupt(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b'{"schema": \n'
    path.write_bytes(b"".join(lines))
    with Recording(str(path)) as recording:
        feed = ReplayFeed(recording)
        feed.faster(6)
        with running(feed) as told:
            while isinstance(found := told.get(timeout=60), Seen):
                pass
    assert isinstance(found, Missed)
    assert found.fatal
    assert found.error.message == f"{path}, line 4: this is no JSON"


class FullWriter(Writer):
    """A disk that is full after the header."""

    def add(self, picture: object) -> None:
        raise OSError(28, "No space left on device", picture and None)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    agent = FakeAgent(counting())
    with (
        agent.serving(),
        asked(agent.url, NOWHERE) as who,
        FullWriter(str(tmp_path / "b")) as writer,
    ):
        both = Live(who, writer, "b")
        assert both.notice == "recording to b"
        both.sample()
        both.sample()
        assert both.notice == "recording stopped: no space left on device"


def test_what_is_seen_is_recorded(tmp_path: Path) -> None:
    agent, path = FakeAgent(counting()), tmp_path / "c"
    with (
        agent.serving(),
        asked(agent.url, NOWHERE) as who,
        Writer(str(path)) as writer,
    ):
        both = Live(who, writer, str(path))
        told = [both.sample().taken for _ in range(3)]
        agent.answer = dict
        with pytest.raises(AgentError):
            both.sample()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["taken"] for line in lines[1:]] == told
