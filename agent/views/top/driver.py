# SPDX-License-Identifier: Apache-2.0
"""How the screen reaches the terminal: over a slow line it skips frames, and is new.

Textual queues 30 writes, and waits where there are more: on a line that takes less
than is drawn the screen falls half a minute behind, and `q` waits for all of it. Here
nothing is drawn while the terminal takes the last frame; the next one shows what is so
by then. What was not taken at the end is thrown away before the terminal is restored.

What the kernel, ssh or kubectl have taken is on its way, and out of our reach.
"""

import asyncio
import contextlib
import os
import select
import signal
import termios
import threading
from collections.abc import Callable

from textual.app import ScreenStackError
from textual.drivers.linux_driver import LinuxDriver

_PIECE = 1024  # bytes of a write: what is thrown away can wait for no more
_END_SECONDS = 2.0  # for a terminal that takes nothing
_TERM_SECONDS = 0.05  # until asyncio has told of a signal
# A sequence that was cut off is cancelled; synchronised output and styles end.
_AFRESH = b"\x18\x1b[?2026l\x1b[0m"


class Writer:
    """Writes to a terminal from a thread of its own. `idle` is called there whenever
    all is written.
    """

    def __init__(self, fd: int, idle: Callable[[], object]) -> None:
        self._fd = fd
        self._idle = idle
        self._told = threading.Condition()
        self._pending = bytearray()
        self._writing = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Is there anything that the terminal has not taken?"""
        with self._told:
            return self._writing or bool(self._pending)

    def put(self, data: bytes) -> None:
        """Write it, after what was put before."""
        with self._told:
            self._pending += data
            self._told.notify()

    def discard(self) -> None:
        """Forget what the terminal has not taken; what follows begins afresh."""
        with self._told:
            self._pending.clear()
        # What the kernel holds for it, too.
        with contextlib.suppress(termios.error):
            termios.tcflush(self._fd, termios.TCOFLUSH)
        self.put(_AFRESH)

    def end(self) -> None:
        """Write the rest, unless the terminal takes nothing."""
        with self._told:
            self._ended = True
            self._told.notify()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        while piece := self._next():
            try:
                while piece:
                    piece = piece[self._write(piece) :]
            except OSError:  # the terminal is gone; SIGHUP comes
                with self._told:
                    self._pending.clear()

    def _next(self) -> bytes:
        """Wait for something to write; nothing at the end."""
        with self._told:
            was, self._writing = self._writing, False
        if was and not self.busy:
            self._idle()
        with self._told:
            self._told.wait_for(lambda: self._pending or self._ended)
            piece = bytes(self._pending[:_PIECE])
            del self._pending[:_PIECE]
            self._writing = bool(piece)
        return piece

    def _write(self, piece: bytes) -> int:
        try:
            return os.write(self._fd, piece)
        except BlockingIOError:  # somebody has made it non-blocking
            select.select([], [self._fd], [])
            return 0


class SlowLineDriver(LinuxDriver):
    """Textual's driver with this writer in place of its own, which stays idle.

    It takes a SIGCONT for the end of Ctrl-Z. One also comes after SIGSTOP, from
    systemd with each SIGTERM, and where a terminal hangs up: to begin once more without
    an end would take our settings of the terminal for those that it had.
    """

    _writer: Writer | None = None
    _is_suspended = False

    def start_application_mode(self) -> None:
        """Also after Ctrl-Z."""
        loop = asyncio.get_running_loop()

        def idle() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._go_on)

        self._waiting = contextlib.ExitStack()
        assert self._file is not None
        self._writer = Writer(self._file.fileno(), idle)
        self._is_suspended = False
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self._is_suspended = not self._has_terminal()  # in the background: until `fg`

    def write(self, data: str) -> None:
        """Never waits."""
        assert self._writer is not None
        self._writer.put(data.encode(errors="replace"))

    def flush(self) -> None:
        """A frame is complete: no other one before the terminal has taken it."""
        if self._writer and self._writer.busy:
            self._waiting.enter_context(self._app.batch_update())

    def _go_on(self) -> None:
        if self._writer and not self._writer.busy:
            self._waiting.close()
            with contextlib.suppress(ScreenStackError):  # it begins, or ends
                self._app.screen.check_idle()  # draws what has changed meanwhile

    def stop_application_mode(self) -> None:
        """The terminal as it was, at once."""
        if self._is_suspended:
            return  # it is
        if self._in_background():
            self.attrs_before = None  # it has another's by now
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or we would be stopped
        assert self._writer is not None
        self._writer.discard()
        super().stop_application_mode()
        self._waiting.close()

    def disable_input(self) -> None:
        """Also at once when the app ends."""
        if self._is_suspended:
            return
        if self._in_background():
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        super().disable_input()

    def suspend_application_mode(self) -> None:
        """The terminal is the shell's."""
        super().suspend_application_mode()
        self._is_suspended = not self._is_ending()  # or it would be taken once more

    def resume_application_mode(self) -> None:
        """Take the terminal again, as it is now; only where we had it."""
        if self._is_ending():
            return
        if self._in_background():
            os.kill(os.getpid(), signal.SIGSTOP)  # until `fg`
            return
        if self._has_terminal():
            self.suspend_application_mode()
            self._must_signal_resume = True  # all is drawn anew
        if self._is_suspended:
            super().resume_application_mode()

    def _is_ending(self) -> bool:
        return self._app.return_code is not None

    def _has_terminal(self) -> bool:
        return self._key_thread is not None and self._key_thread.is_alive()

    def _in_background(self) -> bool:
        """False where it is not the terminal that controls us."""
        try:
            return os.tcgetpgrp(self.fileno) != os.getpgrp()
        except OSError:
            return False

    def _sigcont_application(self, *_: object) -> None:
        """Not in the middle of what we do, and after the SIGTERM that came before: a
        shell sends both to who is suspended.
        """
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop = asyncio.get_running_loop()
            resume = super()._sigcont_application
            loop.call_soon_threadsafe(loop.call_later, _TERM_SECONDS, resume)

    def close(self) -> None:
        """When all is restored, or the terminal takes nothing."""
        if self._writer is not None:
            self._writer.end()
        super().close()
