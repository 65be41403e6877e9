# SPDX-License-Identifier: Apache-2.0
"""What the collector asks, and what it does with an answer that does not come."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import structlog

from agent.snapshot.cilium import Applied, ClusterState, RuntimeConfig
from agent.snapshot.model import DeviceId, Hook, Reading, RowKey, Source
from agent.snapshot.naming import Naming

_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Probes(Protocol):
    """What the collector wants of agent.kernel.probes.Probes."""

    @property
    def attached(self) -> dict[Hook, bool]:
        """Each hook that was asked for: is it attached?"""

    @property
    def capacity(self) -> int:
        """Rows that the map has room for."""

    def read(self) -> Reading:
        """All counters now."""

    def forget(self, rows: Iterable[RowKey], devices: Iterable[DeviceId]) -> None:
        """Drop rows and devices from the kernel's maps."""


class Remembered(Generic[T]):
    """A source that may fail: its last good answer, and how often it failed.

    Only OSError counts as failing; anything else is a defect of ours.
    """

    def __init__(
        self, name: str, read: Callable[[], T], wall: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self.state = Source(up=True, errors=0)
        self._read = read
        self._wall = wall
        self.problem = ""  # why there was no answer this time
        self._failed = False
        self._told_absent = False
        self._last: T | None = None

    def get(self) -> T | None:
        """The answer now, or the last good one; OSError where there is none."""
        self.problem = ""
        try:
            self._last = self._read()
        except OSError as err:
            if not self._failed:
                _log.warning("source failed", source=self.name, error=str(err))
            self._failed = True
            self.problem = str(err)
            self.state = replace(self.state, up=False, errors=self.state.errors + 1)
            if self._last is None:
                raise
        else:
            here = self._last is not None  # None: there is no such thing here
            if here and self._failed:
                _log.info("source is back", source=self.name)
            if not here and not self._told_absent:
                _log.info("source is absent", source=self.name)
            self._told_absent = not here
            self._failed = False
            answered = self._wall() if here else None
            self.state = Source(here, self.state.errors, answered)
        return self._last

    def amend(self, answer: T) -> None:
        """The last good answer is this one."""
        self._last = answer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node may or may not have; each answers without waiting.

    `applied`: Cilium's agent; None where there is none, OSError where it fails.
    `runtime`: the file that it leaves behind when it starts, in the same way.
    `cluster`: the API server; None where there is none. `ip6_too_big`: the
    node's counter of that name.
    """

    applied: Callable[[], Applied | None] = lambda: None
    runtime: Callable[[], RuntimeConfig | None] = lambda: None
    cluster: Callable[[], ClusterState | None] = lambda: None
    ip6_too_big: Callable[[], int] = lambda: 0
    kernel: str = ""  # its release
    node: str = ""  # its host name
    naming: Naming = field(default_factory=Naming)


def or_none(source: Remembered[T]) -> T | None:
    """The answer now, or the last good one, or None."""
    try:
        return source.get()
    except OSError:
        return None
