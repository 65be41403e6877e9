# SPDX-License-Identifier: Apache-2.0
"""HTTP over a unix socket, within limits of time and length that hold for all of it.

http.client's timeout begins anew with each byte, so a server that sends one byte
a second would hold us for ever; and it reads as much as a server says it sends.
"""

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from agent.cluster.relay import Relay
from agent.cluster.relay_process import ERRNO, request

_HTTP_OK = 200


class _TooLongError(OSError):
    """More came than anyone asked for."""


class _Socket(socket.socket):
    """A unix socket on which all ends at `deadline` (monotonic seconds), or after
    `most` bytes were read.
    """

    def __init__(
        self,
        deadline: float,
        most: int,
        now: Callable[[], float],
        fileno: int | None = None,
    ) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fileno)
        self._deadline = deadline
        self._left = most
        self._now = now

    def connect(self, address: Any) -> None:
        self._hurry()
        super().connect(address)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._hurry()
        super().sendall(data, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """What http.client reads with."""
        self._hurry()
        got = super().recv_into(buffer, nbytes, flags)
        self._left -= got
        if self._left < 0:
            raise _TooLongError
        return got

    def read_errno(self) -> None:
        """Raise what stands before the answer of a Relay."""
        with self.makefile("rb", buffering=0) as file:
            data = file.read(ERRNO.size) or b""
        if len(data) < ERRNO.size:
            raise OSError("the process that asks Cilium has ended; restart the agent")
        (number,) = ERRNO.unpack(data)
        if number:
            raise OSError(number, os.strerror(number))

    def _hurry(self) -> None:
        left = self._deadline - self._now()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)


class UnixServer:
    """An HTTP server behind the unix socket `path`, for `seconds` from now on.

    No answer may be longer than `most` bytes. With a `relay` that process asks, and
    `path` is only told.
    """

    def __init__(
        self,
        path: str,
        seconds: float,
        most: int,
        now: Callable[[], float] = time.monotonic,
        relay: Relay | None = None,
    ) -> None:
        self._path = path
        self._seconds = seconds
        self._most = most
        self._now = now
        self._deadline = now() + seconds
        self._relay = relay

    def get(self, url: str) -> bytearray:
        """The body of an answer 200, on a connection of its own.

        FileNotFoundError where there is no socket; all else that goes wrong is
        an OSError whose text is a sentence.
        """
        asked = f"GET {url} at {self._path}"
        try:
            with (
                self._asked(url) as connection,
                http.client.HTTPResponse(connection, method="GET") as response,
            ):
                response.begin()
                body = _body(response, self._most + 1)
        except FileNotFoundError:
            raise
        except TimeoutError as err:
            raise OSError(f"{asked}: no answer within {self._seconds:g} s") from err
        except ConnectionRefusedError as err:
            raise OSError(f"{asked}: nobody listens") from err
        except _TooLongError as err:
            raise OSError(f"{asked}: an answer without end") from err
        except (http.client.HTTPException, ValueError) as err:
            raise OSError(f"{asked}: no whole HTTP answer") from err
        except OSError as err:
            raise OSError(f"{asked}: {err.strerror or err}") from err
        if response.status != _HTTP_OK:
            raise OSError(f"{asked}: answers {response.status}")
        if len(body) > self._most:
            raise OSError(f"{asked}: longer than {self._most:,} bytes")
        if response.length:
            raise OSError(f"{asked}: ends {response.length:,} bytes too soon")
        return body

    @contextlib.contextmanager
    def _asked(self, url: str) -> Iterator[_Socket]:
        """The socket on which the answer comes."""
        fileno = self._relay.ask(url).detach() if self._relay else None
        # Headers, and lengths of chunks, are no more than what they are about.
        most = 2 * self._most
        with _Socket(self._deadline, most, self._now, fileno) as connection:
            if self._relay:
                connection.read_errno()
            else:
                connection.connect(self._path)
                connection.sendall(request(url))
            yield connection


def _body(response: http.client.HTTPResponse, most: int) -> bytearray:
    """At most so many bytes. Never by read(): it makes room for any Content-Length at
    once, and keeps an object for each chunk. This room takes memory as it is filled.
    """
    # A few bytes of gzip are any number of ours.
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise OSError("answers with a content encoding")
    body, length = bytearray(most), 0
    while got := response.readinto(memoryview(body)[length:]):
        length += got
    del body[length:]
    return body
