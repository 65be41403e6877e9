# SPDX-License-Identifier: Apache-2.0
"""What a finding is: one thing that is wrong with BIG TCP."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from agent.snapshot.evidence import Evidence
from agent.snapshot.model import Family


class Severity(StrEnum):
    """`critical`: slower than BIG TCP off, or broken. `warning`: not what was
    wanted. `info`: good to know.
    """

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what was seen, why it matters, what to do.

    `subjects` are the devices or pods concerned, `families` the IP families.
    """

    id: str
    severity: Severity
    families: tuple[Family, ...]
    seen: str
    why: str
    remedy: str
    subjects: tuple[str, ...] = ()


def utc(seconds: float) -> str:
    """Seconds since the epoch, to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


Find = Callable[[Evidence], Iterator[Finding]]
