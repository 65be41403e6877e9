# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of its own: what it writes, and keys for it."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any


class Terminal:
    """`text` is all that was written so far."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.text = ""
        self._fd = fd

    def read(self, seconds: float, most: int = 1 << 16) -> bool:
        """Wait so long for more; False where there is none, or never will be."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        try:
            self.text += os.read(self._fd, most).decode(errors="replace")
        except OSError:  # the program has ended
            return False
        return True

    def read_slowly(self, seconds: float, rate: int, until: str = "") -> int:
        """Read for so long, or until this was written, so many bytes a second, as
        over a slow line; how many characters came.
        """
        begun, seen = time.monotonic(), len(self.text)
        while not until or until not in self.text[seen:]:
            if time.monotonic() - begun >= seconds:
                assert not until, f"no {until!r} in {self.text[-3000:]!r}"
                break
            self.read(0.1, rate // 20)
            time.sleep(0.05)
        return len(self.text) - seen

    def wait_for(self, text: str, seconds: float = 60.0, *, after: int = 0) -> float:
        """Wait until this was written, after so many characters; how long it took."""
        begun = time.monotonic()
        while text not in self.text[after:]:
            left = begun + seconds - time.monotonic()
            assert left > 0, f"no {text!r} in {self.text[-3000:]!r}"
            if not self.read(min(left, 0.5)):
                assert self.process.poll() is None, self.text[-3000:]
        return time.monotonic() - begun

    def drain(self, seconds: float) -> None:
        """Read for so long, as a terminal does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.read(left)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        """And tell the program; the kernel does not, it is not its terminal."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)
        self.process.send_signal(signal.SIGWINCH)

    def end(self, seconds: float = 60.0) -> int:
        """Read to the end of the program; its exit code."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, self.text[-3000:]
            self.read(0.1)
        while self.read(0):
            pass
        return self.process.returncode

    @property
    def attributes(self) -> list[Any]:
        """Of the terminal: what a program that ends must have put back."""
        return termios.tcgetattr(self._fd)

    @attributes.setter
    def attributes(self, to: list[Any]) -> None:
        termios.tcsetattr(self._fd, termios.TCSANOW, to)


@contextlib.contextmanager
def terminal(
    *argv: str, columns: int = 80, lines: int = 24, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    """Run it there; it is killed at the end."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with subprocess.Popen(
        argv,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", **(env or {})},
    ) as process:
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
            process.wait()
            os.close(its)
            os.close(ours)


def restored(screen: Terminal) -> bool:
    """The cursor, the usual screen, the mouse: as a shell wants them."""
    tail = screen.text[screen.text.rindex("\x1b[?1049l") :]
    before = screen.text[: screen.text.rindex("\x1b[?1049l")]
    return "\x1b[?25h" in tail and "\x1b[?1000l" in before + tail
