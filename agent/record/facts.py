# SPDX-License-Identifier: Apache-2.0
"""What every record tells in the same words."""

import time
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from agent.snapshot.comparison import BIG_SHARE, SEGMENTS, Facts, Measured, Metric
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import Lengths
from agent.snapshot.plain import plain


def measured(
    path: str, name: str, test: str, about: dict[str, str], families: dict[str, Facts]
) -> Measured:
    """A record of netperf, or, without a `test`, of top. Without a name it has the
    file's.
    """
    return Measured(
        path=plain(path),
        name=plain(name or PurePath(path).stem),
        kind="netperf" if test else "top",
        test=test,
        about=about,
        families=families,
    )


def when(taken: float) -> str:
    """A time in seconds since the epoch for people; "-" where there is no such."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(taken))
    except (OverflowError, ValueError, OSError):
        return "-"


def _present(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(value for value in values if value is not None)


def shapes(seen: list[Lengths]) -> dict[Metric, tuple[float, ...]]:
    """What lengths tell; nothing of those that are empty."""
    return {
        BIG_SHARE: _present(lengths.histogram.big_share for lengths in seen),
        SEGMENTS: _present(lengths.segments_per_skb for lengths in seen),
    }


def histograms(seen: Mapping[str, list[Lengths]]) -> dict[str, Histogram]:
    """The sum of each list that is not empty."""
    found: dict[str, Histogram] = {}
    for at, each in seen.items():
        for lengths in each:
            histogram = lengths.histogram
            found[at] = found[at].add(histogram) if at in found else histogram
    return found
