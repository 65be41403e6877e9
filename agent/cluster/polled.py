# SPDX-License-Identifier: Apache-2.0
"""A source that may take seconds to answer, asked in the background.

A scrape must not wait for a Cilium that hangs, nor does the start for long.
"""

import threading
import time
from typing import Generic, Self, TypeVar

from agent.snapshot.model import Source
from agent.snapshot.sources import Remembered, Told

# For the first answer, from the start on. Whoever starts has a second.
PATIENCE_SECONDS = 0.3

T = TypeVar("T")


class Polled(Generic[T]):
    """Reads a source in a thread, then again `seconds` after each answer."""

    def __init__(self, source: Remembered[T], seconds: float) -> None:
        self._source = source
        self._seconds = seconds
        self._stop = threading.Event()
        self._asked = threading.Event()
        self._last: Told[T] = Told(None, Source(up=False, errors=0), "no answer yet")
        self._thread = threading.Thread(target=self._run, name="polled", daemon=True)
        self._until = 0.0  # who comes later does not wait

    def __enter__(self) -> Self:
        self._until = time.monotonic() + PATIENCE_SECONDS
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def last(self) -> Told[T]:
        """What the last read brought; only the first is waited for, and not long."""
        self._asked.wait(max(0.0, self._until - time.monotonic()))
        if not self._thread.is_alive() and not self._stop.is_set():
            raise RuntimeError("what is polled has a defect; see the log")
        return self._last

    def _run(self) -> None:
        try:
            while True:
                self._last = self._source.read()
                self._asked.set()
                if self._stop.wait(self._seconds):
                    return
        finally:
            self._asked.set()
