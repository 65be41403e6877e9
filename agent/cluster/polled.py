# SPDX-License-Identifier: Apache-2.0
"""A source that may take seconds to answer, asked in the background.

A scrape must not wait for a Cilium that hangs.
"""

import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Polled(Generic[T]):
    """Calls `read` in a thread, then again `seconds` after each answer."""

    def __init__(self, read: Callable[[], T], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._stop = threading.Event()
        self._asked = threading.Event()
        self._answer: tuple[T | None, OSError | None] = (None, None)
        self._thread = threading.Thread(target=self._run, name="polled", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def get(self) -> T:
        """What the last `read` returned; the OSError that it raised.

        Only the first answer is waited for.
        """
        self._asked.wait()
        answer, error = self._answer
        if error is not None:
            raise OSError(*error.args) from error
        if not self._thread.is_alive() and not self._stop.is_set():
            raise RuntimeError("what is polled has a defect; see the log")
        return answer  # type: ignore[return-value]  # it is T once it was asked

    def _run(self) -> None:
        try:
            while True:
                try:
                    self._answer = (self._read(), None)
                except OSError as err:
                    self._answer = (None, err)
                self._asked.set()
                if self._stop.wait(self._seconds):
                    return
        finally:
            self._asked.set()
