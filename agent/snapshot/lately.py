# SPDX-License-Identifier: Apache-2.0
"""What happened lately: the difference to a moment that is remembered."""

from collections import deque
from dataclasses import dataclass, field

from agent.snapshot.model import Row, RowKey
from agent.snapshot.snapshot import Recent

# What happened lately is what happened in at least this time, if anybody asked
# for a snapshot before it.
RECENT_SECONDS = 30.0
_APART = RECENT_SECONDS / 10  # moments that are remembered


@dataclass(frozen=True, slots=True)
class Moment:
    """Counters as they were at a time (monotonic seconds).

    `ip6_too_big` is None while it was never read.
    """

    at: float
    rows: dict[RowKey, Row]
    ip6_too_big: int | None
    unrecorded: dict[str, int] = field(default_factory=dict)


class Lately:
    """Remembers a few moments."""

    def __init__(self) -> None:
        self._past: deque[Moment] = deque()

    def recent(self, now: Moment, since: Moment | None = None) -> Recent:
        """What was counted since then, or since RECENT_SECONDS ago."""
        past = self._past
        while len(past) > 1 and past[1].at <= now.at - RECENT_SECONDS:
            past.popleft()
        if not past or now.at - past[-1].at >= _APART:
            past.append(now)
        first = since or past[0]
        rows = {
            key: row.lengths.since(first.rows[key].lengths)
            if key in first.rows
            else row.lengths
            for key, row in now.rows.items()
        }
        return Recent(
            now.at - first.at,
            {key: lengths for key, lengths in rows.items() if lengths.histogram.count},
            _grown(first.ip6_too_big, now.ip6_too_big),
            {
                reason: _grown(first.unrecorded.get(reason, 0), count)
                for reason, count in now.unrecorded.items()
            },
        )


def _grown(first: int | None, now: int | None) -> int:
    return 0 if first is None or now is None else max(0, now - first)
