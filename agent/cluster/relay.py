# SPDX-License-Identifier: Apache-2.0
"""The agent's side of relay_process.py, which alone reaches Cilium's socket."""

import contextlib
import socket
import subprocess
import sys
from typing import Self

from agent.cluster import relay_process

_END_SECONDS = 1.0


class Relay:
    """A process that asks Cilium's agent at the socket `path` for three URLs.

    It inherits what the calling thread may do, so start it before unix sockets are
    denied, and after capabilities are dropped.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._control, self._its = socket.socketpair()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        fd = self._its.fileno()
        with self._its:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", relay_process.__file__),
                    *(str(fd), self._path),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # its stderr is ours
                pass_fds=(fd,),
                start_new_session=True,  # Ctrl-C is for us; it ends with us
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        if self._process:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel
                self._process.wait(_END_SECONDS)

    @property
    def ended(self) -> bool:
        """Has the process ended, though we have not?"""
        return self._process is not None and self._process.poll() is not None

    def ask(self, url: str) -> socket.socket:
        """Return the socket that the answer to GET `url` comes on, behind an errno
        (relay_process.ERRNO). OSError where the process has ended.
        """
        ours, its = socket.socketpair()
        with its:
            try:
                number = relay_process.URLS.index(url)
                socket.send_fds(self._control, [bytes([number])], [its.fileno()])
            except OSError as err:
                ours.close()
                raise OSError("the process that asks Cilium has ended") from err
        return ours
