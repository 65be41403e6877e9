# SPDX-License-Identifier: Apache-2.0
"""What the collector asks, and what it does with an answer that does not come."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, Never, Protocol, TypeVar

import structlog

from agent.snapshot.cilium import Applied, ClusterState, DaemonConfig, Endpoint
from agent.snapshot.model import DeviceId, Hook, Reading, RowKey, Source
from agent.snapshot.naming import Naming

_log = structlog.get_logger(__name__)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Probes(Protocol):
    """What the collector wants of agent.kernel.probes.Probes."""

    @property
    def attached(self) -> dict[Hook, bool]:
        """Each hook that was asked for: is it attached?"""

    def read(self) -> Reading:
        """All counters now."""

    def forget(self, rows: Iterable[RowKey], devices: Iterable[DeviceId]) -> None:
        """Drop rows and devices from the kernel's maps."""


@dataclass(frozen=True, slots=True)
class Told(Generic[T_co]):
    """What a source last answered, and how its last read went.

    `answer`: the last good one, None where there is none. `problem`: why the last
    read brought none.
    """

    answer: T_co | None
    state: Source
    problem: str = ""


NOTHING_HERE: Told[Never] = Told(None, Source(up=False, errors=0))


class Remembered(Generic[T]):
    """A source that may fail: its last good answer, and how often it failed.

    Only OSError counts as failing; anything else is a defect of ours. `last` is
    what the last read brought.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], T | None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.last: Told[T] = Told(None, Source(up=True, errors=0))
        self._read = read
        self._wall = wall

    def read(self) -> Told[T]:
        """Ask it now."""
        before = self.last
        try:
            answer = self._read()
        except OSError as err:
            state = replace(before.state, up=False, errors=before.state.errors + 1)
            self.last = Told(before.answer, state, str(err) or repr(err))
        else:
            here = answer is not None  # None: there is no such thing here
            answered = self._wall() if here else None
            self.last = Told(answer, Source(here, before.state.errors, answered))
        return self.last

    def amend(self, answer: T) -> None:
        """The last good answer is this one."""
        self.last = replace(self.last, answer=answer)


class Changes:
    """Logs how sources fare, once a change."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    def see(self, name: str, told: Told[object]) -> None:
        """What a source has told now."""
        now = "up" if told.state.up else "failed" if told.problem else "absent"
        if now == "failed" and not told.state.errors:  # it has not answered yet
            return
        before, self._before[name] = self._before.get(name), now
        if now == before:
            return
        if now == "failed":
            _log.warning("source failed", source=name, error=told.problem)
        elif now == "absent":
            _log.info("source is absent", source=name)
        elif before == "failed":
            _log.info("source is back", source=name)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node may or may not have; each answers without waiting.

    `applied`: what Cilium's agent said when it was last read. `runtime`: the file
    that it leaves behind when it starts; None where there is none, OSError where
    it cannot be read. `cilium_left`: is anything in the directory of both?
    `stored_endpoints`: the pods that Cilium's agent would restore when it starts.
    `cluster`: the API server; None where there is none.
    `ip6_too_big`: the node's counter of that name.
    """

    applied: Callable[[], Told[Applied]] = lambda: NOTHING_HERE
    runtime: Callable[[], DaemonConfig | None] = lambda: None
    cilium_left: Callable[[], bool] = lambda: True
    stored_endpoints: Callable[[], tuple[Endpoint, ...]] = lambda: ()
    cluster: Callable[[], ClusterState | None] = lambda: None
    ip6_too_big: Callable[[], int] = lambda: 0
    kernel: str = ""  # its release
    node: str = ""  # its host name
    naming: Naming = field(default_factory=Naming)


def required(told: Told[T]) -> T:
    """The last good answer; OSError while there never was one."""
    if told.answer is None:
        raise OSError(told.problem)
    return told.answer
