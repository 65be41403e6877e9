# SPDX-License-Identifier: Apache-2.0
"""What is slow does not make those wait who ask."""

import contextlib
import threading

import pytest

from agent import node
from agent.cluster.polled import Polled
from agent.lab.netns import wait_until
from agent.settings import Cluster
from agent.snapshot.cilium import Applied
from agent.snapshot.collector import Collector
from agent.snapshot.model import Source
from agent.snapshot.sources import Remembered, Surroundings
from tests.snapshot.fakes import OURS, FakeProbes
from tests.sources.agent import recorded, understood

CILIUM = understood(recorded("1.20.2")["on"])


class Turns:
    """A source that answers when the test lets it."""

    def __init__(self, *answers: Applied | OSError) -> None:
        self._answers = iter(answers)
        self._turn = threading.Semaphore(0)

    def go(self) -> None:
        self._turn.release()

    def read(self) -> Applied:
        self._turn.acquire(timeout=60)
        answer = next(self._answers, OSError("over"))
        if isinstance(answer, OSError):
            raise answer
        return answer


def wait_for(polled: Polled[Applied], state: Source) -> None:
    wait_until(lambda: polled.last().state == state, str(state))


def test_a_look_is_no_read() -> None:
    """What a snapshot says of a source that is polled is of its last read: when it
    answered, and how many of its reads failed, however often anybody looks.
    """
    now, source = [1e9], Turns(CILIUM, OSError("gone"), CILIUM)
    polled = Polled(Remembered("cilium", source.read, lambda: now[0]), 0)
    around = Surroundings(applied=polled.last)
    collector = Collector(FakeProbes(), list, OURS, around, wall=lambda: now[0])
    with polled:
        for number, (expected, problem) in enumerate(
            (
                (Source(up=False, errors=0), "no answer yet"),
                (Source(True, 0, 1e9 + 1000), ""),
                (Source(False, 1, 1e9 + 1000), "gone"),
                (Source(True, 1, 1e9 + 3000), ""),
            )
        ):
            now[0] = 1e9 + 1000 * number
            if number:
                source.go()
            wait_for(polled, expected)
            for _ in range(3):
                now[0] += 100
                snapshot = collector.snapshot()
                assert snapshot.sources["cilium"] == expected
                assert snapshot.problems.get("cilium", "") == problem
                # What it said is kept.
                assert (snapshot.applied is None) is (problem == "no answer yet")
        source.go()


def test_the_start_does_not_wait_for_a_cilium_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it says comes later."""
    over = threading.Event()
    where = Cluster("cilium.sock", "", "", "", "")

    def hang(_: str, **_more: object) -> Applied:
        over.wait(60)
        raise OSError("no answer within 3 s")

    monkeypatch.setattr(node, "read_applied", hang)
    with contextlib.ExitStack() as stack:
        look = node._surroundings(stack, where, None).applied
        for _ in range(1000):
            told = look()
            assert (told.answer, told.state) == (None, Source(up=False, errors=0))
            assert told.problem == "no answer yet"
        over.set()
        wait_until(lambda: look().state.errors, "the read to fail")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_is_no_answer() -> None:
    def read() -> int:
        raise KeyError("ours")

    with Polled(Remembered("it", read), 0) as polled:
        wait_until(lambda: not polled._thread.is_alive(), "the thread to end")
        with pytest.raises(RuntimeError, match="defect"):
            polled.last()
