# SPDX-License-Identifier: Apache-2.0
"""Where the screen gets its samples from, and how it steers that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.errors import AgentError
from agent.snapshot.sample import Sample


@dataclass(frozen=True, slots=True)
class Seen:
    """Samples, in order. `jumped`: what was before has nothing to do with them."""

    samples: tuple[Sample, ...]
    jumped: bool = False


@dataclass(frozen=True, slots=True)
class Missed:
    """There was none, and why. `fatal`: there will be none again."""

    error: AgentError
    fatal: bool = False


Told = Seen | Missed


class Feed(Protocol):
    """Tells from a thread of its own, so that a slow agent never stops a screen.

    `who` answers; `replay`: it is a record, and can be sought in.
    """

    who: str
    replay: bool

    @property
    def paused(self) -> bool:
        """Nothing is asked for, nothing recorded."""

    @property
    def pace(self) -> str:
        """How fast it goes and, in a record, where it is; for the header."""

    @property
    def notice(self) -> str:
        """What else to know, such as that it is recorded."""

    @property
    def patience(self) -> float:
        """Seconds after which a sample is old."""

    def start(self, tell: Callable[[Told], object]) -> None:
        """Begin; `tell` is called from the thread."""

    def stop(self) -> None:
        """End it; nothing is told any more."""

    def pause(self) -> None:
        """Pause, or go on."""

    def faster(self, step: int) -> None:
        """Faster for 1, slower for -1."""

    def seek(self, step: int | None, *, end: bool = False) -> None:
        """So many steps on or, without a number, to the beginning or the end."""
