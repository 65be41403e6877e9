# SPDX-License-Identifier: Apache-2.0
"""The difference of two medians, and how sure it is: percentile bootstrap. Pure."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Self

_RESAMPLES = 10_000
_CONFIDENCE = 0.95
_SEEDS = (1, 2)  # the same records give the same interval


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference B - A of medians (or B / A - 1), and where it lies with 95 %
    confidence.
    """

    difference: float
    low: float
    high: float

    def scaled(self, factor: float) -> Self:
        """All three times `factor`."""
        return type(self)(
            self.difference * factor, self.low * factor, self.high * factor
        )


@lru_cache(maxsize=64)
def _middles(count: int, seed: int) -> tuple[tuple[int, int], ...]:
    """Where, in sorted values, lie the two in the middle of a resample.

    A resample of n draws sorted uniform positions; of these the m-th is Beta(m,
    n - m + 1), and the next the lowest of n - m in what is above it. So a resample
    costs two draws, not n, and is none the less exact. Of an odd number the middle
    stands twice.
    """
    rng = random.Random(seed)  # noqa: S311  statistics
    middle, found = (count + 1) // 2, []
    for _ in range(_RESAMPLES):
        low = rng.betavariate(middle, count - middle + 1)
        high = low
        if count % 2 == 0:
            high = 1 - (1 - low) * (1 - rng.random()) ** (1 / (count - middle))
        found.append(
            (min(int(count * low), count - 1), min(int(count * high), count - 1))
        )
    return tuple(found)


def interval(a: Sequence[float], b: Sequence[float]) -> Interval:
    """The difference of medians B - A with its 95 % interval, by the percentile
    bootstrap. `a` and `b` are not empty.
    """
    return _between(
        median(b) - median(a), (after - before for before, after in _medians(a, b))
    )


def relative(a: Sequence[float], b: Sequence[float]) -> Interval:
    """The same of B / A - 1: it leaves out 0 where the difference does, and is never
    below -1. `a` is positive.
    """
    return _between(
        median(b) / median(a) - 1,
        (after / before - 1 for before, after in _medians(a, b)),
    )


def _medians(a: Sequence[float], b: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Those of the resamples of both."""
    (first, second), (one, two) = (sorted(a), sorted(b)), _SEEDS
    for (k, m), (i, j) in zip(
        _middles(len(first), one), _middles(len(second), two), strict=True
    ):
        yield (first[k] + first[m]) / 2, (second[i] + second[j]) / 2


def _between(value: float, resampled: Iterable[float]) -> Interval:
    found = sorted(resampled)
    tail = round(_RESAMPLES * (1 - _CONFIDENCE) / 2)
    return Interval(value, found[tail], found[-tail - 1])
