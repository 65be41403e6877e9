# SPDX-License-Identifier: Apache-2.0
"""Turns: who comes first goes first, nobody waits for ever, none is lost. Places: who
loses his, and when.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.lab.netns import wait_until
from agent.views.places import Places, Turns


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


class Connections:
    """Pairs of sockets: what Places has, and what its client sees of it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._far: dict[socket.socket, socket.socket] = {}

    def one(self) -> socket.socket:
        ours, far = (self._stack.enter_context(one) for one in socket.socketpair())
        far.setblocking(False)
        self._far[ours] = far
        return ours

    def is_open(self, ours: socket.socket) -> bool:
        try:
            return self._far[ours].recv(1) != b""
        except BlockingIOError:
            return True


@pytest.fixture
def connections() -> Iterator[Connections]:
    with contextlib.ExitStack() as stack:
        yield Connections(stack)


def test_who_has_only_come_is_of_the_crowd(connections: Connections) -> None:
    """Its thread may not have begun; the oldest of all is not of it."""
    places = Places(3, 0)
    alone, first, second, more = (connections.one() for _ in range(4))
    for each, address in ((alone, "a"), (first, "b"), (second, "b")):
        assert places.take(each, address, 0)
    assert not places.take(more, "c", 0)
    assert list(map(connections.is_open, (alone, first, second))) == [True, False, True]
    places.leave(first)
    assert places.take(more, "c", 0)


def test_while_one_is_about_to_leave_no_other_has_to(connections: Connections) -> None:
    places = Places(2, 0)
    first, second, more = (connections.one() for _ in range(3))
    assert places.take(first, "a", 0)
    assert places.take(second, "a", 0)
    for _ in range(3):
        assert not places.take(more, "a", 0)
    assert not connections.is_open(first)
    assert connections.is_open(second)


def test_who_is_being_answered_keeps_the_place(connections: Connections) -> None:
    places = Places(2, 0)
    first, second, more = (connections.one() for _ in range(3))
    assert places.take(first, "a", 0)
    assert places.take(second, "b", 0)
    with places.served(first) as place:
        with places.answering(place):
            assert not places.take(more, "b", 0)
            assert not connections.is_open(second)
            places.leave(second)
            assert places.take(more, "b", 0)
            with places.served(more) as another, places.answering(another):
                assert not places.take(second, "b", 0)
        assert connections.is_open(first)
    assert not places.take(second, "b", 0)
    assert connections.is_open(first)  # its thread is about to close it
    assert connections.is_open(more)


def test_who_has_lost_it_is_not_answered(connections: Connections) -> None:
    places = Places(1, 0)
    one = connections.one()
    assert places.take(one, "a", 0)
    assert not places.take(connections.one(), "b", 0)
    with places.served(one) as place:
        with pytest.raises(ConnectionAbortedError), places.answering(place):
            pytest.fail("it was answered")
        with pytest.raises(ConnectionAbortedError):
            places.encrypted(place, connections.one())


def test_a_place_that_becomes_free_is_given_on(connections: Connections) -> None:
    places = Places(1, 0)
    one, other = connections.one(), connections.one()
    assert places.take(one, "a", 0)

    def until_sent_away() -> None:
        assert one.recv(1) == b""
        places.leave(one)

    threading.Thread(target=until_sent_away).start()
    assert places.take(other, "b", 60)


def test_nobody_is_sent_away_as_soon_as_he_comes(connections: Connections) -> None:
    """What he wants may be here, and nobody has looked yet."""
    places = Places(1, 60)
    one = connections.one()
    assert places.take(one, "a", 0)
    assert not places.take(connections.one(), "b", 0)
    assert connections.is_open(one)


def test_who_becomes_slow_while_one_waits_is_sent_away(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, looked = Places(1, 0), threading.Event()
    dismiss = places._dismiss

    def look() -> None:
        looked.set()
        dismiss()

    monkeypatch.setattr(places, "_dismiss", look)
    one, other = connections.one(), connections.one()
    assert places.take(one, "a", 0)
    with places.served(one) as place, ThreadPoolExecutor(1) as pool:
        with places.answering(place):
            waiting = pool.submit(places.take, other, "b", 60)
            assert looked.wait(60)
        assert one.recv(1) == b""
        places.leave(one)
        assert waiting.result()
