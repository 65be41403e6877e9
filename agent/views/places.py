# SPDX-License-Identifier: Apache-2.0
"""How many clients are served at once, and for how long each is waited for."""

import contextlib
import io
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_TOO_MANY = "too many ask at once; try again"
_LOOK_SECONDS = 0.1  # for one who has become slow meanwhile


@dataclass(eq=False)
class Place:
    """Of one connection, which came at `since` (monotonic seconds)."""

    connection: socket.socket
    address: str
    since: float = field(default_factory=time.monotonic)
    is_awaited: bool = True  # it is the client's turn, from when it came
    is_lost: bool = False


class Places:
    """So many connections. Where all places are taken, one whose client is waited for,
    and has been here for `grace` seconds, loses its own: the oldest of the address that
    has most of them. So many that say nothing, or drip, or do not read keep nobody away
    who comes from elsewhere.
    """

    def __init__(self, most: int, grace: float) -> None:
        self._most = most
        self._grace = grace
        self._changed = threading.Condition()
        self._taken: dict[socket.socket, Place] = {}

    def take(self, connection: socket.socket, address: str, seconds: float) -> bool:
        """Have a place, or wait so long for one. False: there is none."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._is_full():
                self._dismiss()
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _LOOK_SECONDS))
            self._taken[connection] = Place(connection, address)
            return True

    def leave(self, connection: socket.socket) -> None:
        """Who had one needs it no more."""
        with self._changed:
            del self._taken[connection]
            self._changed.notify()

    @contextlib.contextmanager
    def served(self, connection: socket.socket) -> Iterator[Place]:
        """Its place, which it cannot lose any more afterwards: then it is closed."""
        with self._changed:
            place = self._taken[connection]
        try:
            yield place
        finally:
            with self._changed:
                place.is_awaited = False

    def encrypted(self, place: Place, connection: socket.socket) -> None:
        """Its place is this one's from now on; ConnectionAbortedError: it has none."""
        with self._kept(place):
            place.connection = connection

    @contextlib.contextmanager
    def answering(self, place: Place) -> Iterator[None]:
        """Meanwhile it is our turn, and it keeps its place; ConnectionAbortedError: it
        has none.
        """
        with self._kept(place):
            place.is_awaited = False
        try:
            yield
        finally:
            with self._changed:
                place.is_awaited = True

    @contextlib.contextmanager
    def _kept(self, place: Place) -> Iterator[None]:
        with self._changed:
            if place.is_lost:
                raise ConnectionAbortedError
            yield

    def _is_full(self) -> bool:
        return len(self._taken) >= self._most

    def _dismiss(self) -> None:
        if any(place.is_lost for place in self._taken.values()):
            return  # it is about to leave
        awaited = [place for place in self._taken.values() if place.is_awaited]
        crowd = Counter(place.address for place in awaited)
        one = max(
            awaited,
            key=lambda place: (crowd[place.address], -place.since),
            default=None,
        )
        if one is None or time.monotonic() - one.since < self._grace:
            return
        one.is_lost = True
        # SSLSocket's own takes away what its thread reads with.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(one.connection, socket.SHUT_RDWR)


class Client(io.RawIOBase):
    """A connection, to read a request from, all of it within so many `seconds` (the
    timeout of a socket begins anew with each byte), and to write the answer.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._begun = time.monotonic()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What the client says; TimeoutError where it takes too long."""
        left = self._begun + self._seconds - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of it; ConnectionAbortedError where the client does not read."""
        self._connection.settimeout(self._seconds)
        try:
            self._connection.sendall(data)
        except OSError as err:  # wsgiref logs the others
            raise ConnectionAbortedError from err
        return len(data)


class Turns:
    """So many at a time, and of one address no more than `of_one`, who waits or not.
    Who finds no turn waits in line for so many `seconds`, if fewer than `line` do.
    """

    def __init__(
        self, most: int, of_one: int, *, line: int = 0, seconds: float = 0
    ) -> None:
        self._free = most
        self._of_one = of_one
        self._most_waiting = line
        self._seconds = seconds
        self._lock = threading.Lock()
        self._line: deque[threading.Event] = deque()
        self._here: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, address: str) -> Iterator[None]:
        """Have a turn meanwhile; OSError where there is none."""
        with self._lock:
            if self._here[address] >= self._of_one:
                raise OSError(_TOO_MANY)
            self._here[address] += 1
        try:
            self._take()
            try:
                yield
            finally:
                self._give()
        finally:
            with self._lock:
                self._here[address] -= 1
                if not self._here[address]:
                    del self._here[address]

    def _take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            if len(self._line) >= self._most_waiting:
                raise OSError(_TOO_MANY)
            mine = threading.Event()
            self._line.append(mine)
        if mine.wait(self._seconds):
            return
        with self._lock:
            if not mine.is_set():
                self._line.remove(mine)
                raise OSError(_TOO_MANY)

    def _give(self) -> None:
        with self._lock:
            if self._line:
                self._line.popleft().set()  # handed on: nobody comes in between
            else:
                self._free += 1
