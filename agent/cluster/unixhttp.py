# SPDX-License-Identifier: Apache-2.0
"""HTTP over a unix socket, within limits of time and length that hold for all of it.

http.client's timeout begins anew with each byte, so a server that sends one byte
a second would hold us for ever; and it reads as much as a server says it sends.
"""

import contextlib
import http.client
import socket
import time
from collections.abc import Callable
from typing import Any

_HTTP_OK = 200


class _TooLongError(OSError):
    """More came than anyone asked for."""


class _Socket(socket.socket):
    """A unix socket on which all ends at `deadline` (monotonic seconds), or after
    `most` bytes were read.
    """

    def __init__(self, deadline: float, most: int, now: Callable[[], float]) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
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

    def _hurry(self) -> None:
        left = self._deadline - self._now()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)


class UnixServer:
    """An HTTP server behind the unix socket `path`, for `seconds` from now on.

    No answer may be longer than `most` bytes.
    """

    def __init__(
        self,
        path: str,
        seconds: float,
        most: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._seconds = seconds
        self._most = most
        self._now = now
        self._deadline = now() + seconds

    def get(self, url: str) -> bytes:
        """The body of an answer 200, on a connection of its own.

        FileNotFoundError where there is no socket; all else that goes wrong is
        an OSError whose text is a sentence.
        """
        asked = f"GET {url} at {self._path}"
        connection = http.client.HTTPConnection("localhost")
        # Headers, and lengths of chunks, are no more than what they are about.
        connection.sock = _Socket(self._deadline, 2 * self._most, self._now)
        try:
            with contextlib.closing(connection):
                connection.sock.connect(self._path)
                connection.request("GET", url)
                with connection.getresponse() as response:
                    # Never read(): it makes room for any Content-Length at once.
                    body = response.read(self._most + 1)
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
