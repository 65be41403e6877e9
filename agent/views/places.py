# SPDX-License-Identifier: Apache-2.0
"""How many clients are served at once, and for how long each is waited for."""

import contextlib
import io
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

_TOO_MANY = "too many ask at once; try again"


class Places:
    """So many connections. Where all places are taken, one that is waited for loses
    its own: the oldest of the address that has most of them. So many that say
    nothing, or drip, or do not read keep nobody away who comes from elsewhere.
    """

    def __init__(self, most: int) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._awaited: dict[socket.socket, tuple[str, float]] = {}

    def take(self, seconds: float) -> bool:
        """Have a place, or wait so long for one. False: there is none."""
        if self._free.acquire(blocking=False):
            return True
        self._dismiss()
        return self._free.acquire(timeout=seconds)

    def leave(self) -> None:
        """Who had one needs it no more."""
        self._free.release()

    @contextlib.contextmanager
    def awaiting(
        self, connection: socket.socket, address: str, since: float
    ) -> Iterator[None]:
        """Meanwhile it is the client's turn, who may lose its place:
        ConnectionAbortedError then. `since`: when it came (monotonic seconds).
        """
        with self._lock:
            self._awaited[connection] = address, since
        try:
            yield
        finally:
            with self._lock:
                kept = self._awaited.pop(connection, None) is not None
        if not kept:
            raise ConnectionAbortedError

    def _dismiss(self) -> None:
        with self._lock:
            crowd = Counter(address for address, _ in self._awaited.values())
            one = max(
                self._awaited.items(),
                key=lambda each: (crowd[each[1][0]], -each[1][1]),
                default=None,
            )
            if one is None:
                return
            del self._awaited[one[0]]
            # SSLSocket's own takes away what its thread reads with.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one[0], socket.SHUT_RDWR)


class Client(io.RawIOBase):
    """A connection, to read a request from, all of it within so many `seconds` (the
    timeout of a socket begins anew with each byte), and to write the answer.
    """

    def __init__(
        self, connection: socket.socket, address: str, places: Places, seconds: float
    ) -> None:
        self._connection = connection
        self._address = address
        self._places = places
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
        with self._awaiting():
            return self._connection.recv_into(buffer)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of it; ConnectionAbortedError where the client does not read."""
        self._connection.settimeout(self._seconds)
        try:
            with self._awaiting():
                self._connection.sendall(data)
        except OSError as err:  # wsgiref logs the others
            raise ConnectionAbortedError from err
        return len(data)

    def _awaiting(self) -> AbstractContextManager[None]:
        return self._places.awaiting(self._connection, self._address, self._begun)


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
