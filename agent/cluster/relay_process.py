# SPDX-License-Identifier: Apache-2.0
"""The one process of an agent that reaches Cilium's socket: `relay_process.py FD PATH`.

A request on the unix socket FD is one byte, the number of a URL in URLS, and the
socket to answer on. The answer is a 4-byte errno and, where that is 0, what Cilium's
agent sends on a connection of its own. Nothing else can be asked. It runs without
Python's site packages and imports little: 4 MiB of memory, besides the interpreter's
files, which it shares with the agent.
"""

import contextlib
import ctypes
import errno
import select
import socket
import struct
import sys
import time

URLS = ("/v1/healthz", "/v1/config", "/v1/endpoint")
ERRNO = struct.Struct("=i")
SECONDS = 3.0  # for one answer; who asked may have gone before
MAX_BYTES = 32 << 20  # of one answer, headers and all
_PR_SET_DUMPABLE = 4


def request(url: str) -> bytes:
    """Return the bytes that ask for `url`, for one answer and the end."""
    return (
        f"GET {url} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )


def _forward(cilium: socket.socket, answer: socket.socket, deadline: float) -> None:
    """Until either side ends, so many bytes have come or `deadline` has passed."""
    poll = select.poll()
    poll.register(cilium, select.POLLIN)
    poll.register(answer, 0)  # POLLHUP: who asked has gone
    left = MAX_BYTES
    while left > 0:
        seconds = deadline - time.monotonic()
        ready = dict(poll.poll(1000 * seconds)) if seconds > 0 else {}
        if not ready or answer.fileno() in ready:
            return
        data = cilium.recv(min(left, 1 << 16))
        if not data:
            return
        answer.settimeout(seconds)
        answer.sendall(data)
        left -= len(data)


def _answer(path: str, number: int, answer: socket.socket) -> None:
    deadline = time.monotonic() + SECONDS
    if number >= len(URLS):
        answer.sendall(ERRNO.pack(errno.EINVAL))
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as cilium:
        cilium.settimeout(SECONDS)
        try:
            cilium.connect(path)
            cilium.sendall(request(URLS[number]))
        except OSError as err:
            # A path that is too long has no number, a timeout neither.
            late = isinstance(err, TimeoutError)
            code = err.errno or (errno.ETIMEDOUT if late else errno.ENAMETOOLONG)
            answer.sendall(ERRNO.pack(code))
            return
        answer.sendall(ERRNO.pack(0))
        _forward(cilium, answer, deadline)


def main(argv: list[str]) -> None:
    """Answer until the agent has gone."""
    # Processes of the same user may not trace it, nor read or write its memory.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, *[ctypes.c_ulong(0)] * 4)
    with socket.socket(fileno=int(argv[1])) as agent:
        while True:
            number, fds, _, _ = socket.recv_fds(agent, 1, 1)
            if not number:
                return
            for fd in fds:
                # Who asked has gone, Cilium has, or that is no socket.
                with contextlib.suppress(OSError), socket.socket(fileno=fd) as answer:
                    _answer(argv[2], number[0], answer)


if __name__ == "__main__":
    main(sys.argv)
