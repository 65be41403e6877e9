# SPDX-License-Identifier: Apache-2.0
"""Turns: who comes first goes first, nobody waits for ever, none is lost."""

import contextlib
import threading

import pytest

from agent.lab.netns import wait_until
from agent.views.places import Turns


class Clients:
    """Threads that take turns, and write down in which order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []

    def comes(self, name: str) -> None:
        def take() -> None:
            with self.turns.one(name):
                self.order.append(name)

        self.threads.append(threading.Thread(target=take))
        self.threads[-1].start()
        wait_until(lambda: self.turns._here[name], f"{name} to stand there")
        waiting = len(self.threads)
        wait_until(lambda: len(self.turns._line) == waiting, f"{name} to wait")


def test_a_line() -> None:
    turns = Turns(1, 1, line=2, seconds=60)
    clients = Clients(turns)
    with turns.one("a"):
        clients.comes("b")
        clients.comes("c")
        for name in ("a", "b", "d"):  # of one address; or there is no room
            with pytest.raises(OSError, match="too many"), turns.one(name):
                pytest.fail("it had a turn")
    for thread in clients.threads:
        thread.join(10)
    assert clients.order == ["b", "c"]
    with turns.one("a"):
        pass
    assert (turns._free, turns._here) == (1, {})


def test_who_waited_too_long_holds_nothing() -> None:
    turns = Turns(1, 1, line=2, seconds=0.05)
    with turns.one("a"), pytest.raises(OSError, match="too many"), turns.one("b"):
        pytest.fail("it had a turn")
    assert (turns._free, list(turns._line), turns._here) == (1, [], {})


def test_who_fails_gives_his_turn_back() -> None:
    turns = Turns(1, 2)
    for _ in range(3):
        with contextlib.suppress(ValueError), turns.one("a"):
            raise ValueError
    with turns.one("a"), pytest.raises(OSError, match="too many"), turns.one("a"):
        pytest.fail("it had a turn")
    assert (turns._free, turns._here) == (1, {})
