# SPDX-License-Identifier: Apache-2.0
"""How many clients are served at once, and for how long each is waited for."""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any


class Places:
    """So many connections. Where all places are taken, the client that was waited for
    longest loses its own: many that say nothing, or do not read, keep nobody away.
    """

    def __init__(self, most: int) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._awaited: dict[socket.socket, None] = {}  # longest first

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
    def awaiting(self, connection: socket.socket) -> Iterator[None]:
        """Meanwhile it is the client's turn, who may lose its place:
        ConnectionAbortedError then.
        """
        with self._lock:
            self._awaited[connection] = None
        try:
            yield
        finally:
            with self._lock:
                kept = self._awaited.pop(connection, False) is None
        if not kept:
            raise ConnectionAbortedError

    def _dismiss(self) -> None:
        with self._lock:
            longest = next(iter(self._awaited), None)
            if longest is None:
                return
            del self._awaited[longest]
            # SSLSocket's own takes away what its thread reads with.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(longest, socket.SHUT_RDWR)


class Client(io.RawIOBase):
    """A connection, to read a request from, all of it within so many `seconds` (the
    timeout of a socket begins anew with each byte), and to write the answer.
    """

    def __init__(
        self, connection: socket.socket, places: Places, seconds: float
    ) -> None:
        self._connection = connection
        self._places = places
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What the client says; TimeoutError where it takes too long."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        with self._places.awaiting(self._connection):
            return self._connection.recv_into(buffer)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of it; ConnectionAbortedError where the client does not read."""
        self._connection.settimeout(self._seconds)
        try:
            with self._places.awaiting(self._connection):
                self._connection.sendall(data)
        except OSError as err:  # wsgiref logs the others
            raise ConnectionAbortedError from err
        return len(data)
