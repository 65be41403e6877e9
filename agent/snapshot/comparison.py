# SPDX-License-Identifier: Apache-2.0
"""Two measurements compared: what differs, by how much, and is it better? Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Self

from agent.errors import BadValueError
from agent.snapshot.histogram import Histogram
from agent.snapshot.interval import Interval, interval, relative

FEWEST_RUNS = 3  # below, an interval says nothing


class Unit(StrEnum):
    """What a metric's values are."""

    PER_SECOND = "1/s"
    BYTES_PER_SECOND = "B/s"
    MICROSECONDS = "µs"
    SHARE = "share"  # of 1
    BYTES = "B"
    PACKETS = "packets"


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that was measured in every run. Shares differ by points, the rest by
    per cent of A. What differs by no more than `resolution` is the same; what is not
    `judged` is neither better nor worse.
    """

    name: str
    unit: Unit
    higher_is_better: bool = True
    resolution: float = 0.0
    judged: bool = True


TRANSACTIONS = Metric("transactions_per_second", Unit.PER_SECOND)
BYTES_SENT = Metric("bytes_per_second", Unit.BYTES_PER_SECOND)
# Smaller ones come from a handshake, or a retransmission, more or less.
BIG_SHARE = Metric("big_bytes_share", Unit.SHARE, resolution=0.001)
SEGMENTS = Metric("segments_per_skb", Unit.PACKETS, resolution=0.1)
# Of some runs exact, of others the upper edge of a slot.
LONGEST = Metric("longest_bytes", Unit.BYTES, judged=False)
_WHOLE = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "mean": 0.0}  # as netperf counts
LATENCIES = {
    at: Metric(f"{at}_latency_us", Unit.MICROSECONDS, False, resolution)
    for at, resolution in _WHOLE.items()
}
THROUGHPUT = (TRANSACTIONS, BYTES_SENT)
METRICS = (*THROUGHPUT, *LATENCIES.values(), BIG_SHARE, SEGMENTS, LONGEST)


class Verdict(StrEnum):
    """What a difference means."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference"
    TOO_FEW_RUNS = "too few runs"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Row:
    """A metric of one family in both measurements; `a` and `b` are not empty.

    `percent`: the difference in per cent of A; in points for a share, None where A's
    median is 0.
    """

    metric: Metric
    a: tuple[float, ...]
    b: tuple[float, ...]
    interval: Interval
    percent: Interval | None

    @classmethod
    def of(cls, metric: Metric, a: tuple[float, ...], b: tuple[float, ...]) -> Self:
        """From the values of each run."""
        difference = interval(a, b)
        if metric.unit is Unit.SHARE:
            return cls(metric, a, b, difference, difference.scaled(100))
        if min(a) > 0:
            return cls(metric, a, b, difference, relative(a, b).scaled(100))
        base = median(a)
        percent = difference.scaled(100 / base) if base else None
        return cls(metric, a, b, difference, percent)

    @property
    def verdict(self) -> Verdict:
        """Better or worse where the interval leaves out 0, and the difference can be
        measured.
        """
        if not self.metric.judged:
            return Verdict.NOT_JUDGED
        if min(len(self.a), len(self.b)) < FEWEST_RUNS:
            return Verdict.TOO_FEW_RUNS
        small = abs(self.interval.difference) <= self.metric.resolution
        if small or self.interval.low <= 0 <= self.interval.high:
            return Verdict.NO_DIFFERENCE
        rose = self.interval.low > 0
        return Verdict.BETTER if rose is self.metric.higher_is_better else Verdict.WORSE


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured of one family: each metric's values, run by run, and
    histograms of skb lengths by what they are of ("sent", "received").
    """

    values: Mapping[Metric, tuple[float, ...]]
    histograms: Mapping[str, Histogram]


@dataclass(frozen=True, slots=True)
class Measured:
    """A record, as far as it can be compared. `kind` is netperf or top; `test` what
    was run ("" for top); `about` what was measured where, label by label.
    """

    path: str
    name: str
    kind: str
    test: str
    about: Mapping[str, str]
    families: Mapping[str, Facts]


@dataclass(frozen=True, slots=True)
class Compared:
    """B against A. `notes` say what else differs."""

    a: Measured
    b: Measured
    rows: Mapping[str, tuple[Row, ...]]
    notes: tuple[str, ...]

    @property
    def throughput(self) -> Mapping[str, Row]:
        """The row of transactions, or bytes, a second of each family."""
        return {
            family: row
            for family, rows in self.rows.items()
            for row in rows
            if row.metric in THROUGHPUT
        }


def compare(a: Measured, b: Measured) -> Compared:
    """B against A; BadValueError where they cannot be compared."""
    if a.kind != b.kind:
        raise BadValueError(
            f"{a.path} is a record of {a.kind}, {b.path} one of {b.kind}",
            "compare two of the same kind",
        )
    if a.test != b.test:
        raise BadValueError(
            f"{a.path} measured {a.test}, {b.path} measured {b.test}",
            "compare runs of the same messages",
        )
    common = [family for family in a.families if family in b.families]
    if not common:
        raise BadValueError(
            f"{a.path} is about {', '.join(a.families)}, {b.path} about "
            f"{', '.join(b.families)}",
            "compare records of the same family",
        )
    rows = {
        family: tuple(_rows(a.families[family], b.families[family]))
        for family in common
    }
    return Compared(a, b, rows, tuple(_notes(a, b)))


def _rows(a: Facts, b: Facts) -> list[Row]:
    return [
        Row.of(metric, a.values[metric], b.values[metric])
        for metric in METRICS
        if a.values.get(metric) and b.values.get(metric)
    ]


_MUST_AGREE = ("seconds a run", "pinned to CPU", "machine", "netperf", "interval")


def _notes(a: Measured, b: Measured) -> list[str]:
    """What makes a difference without being the one that is looked for."""
    notes = []
    for label in _MUST_AGREE:
        before, after = a.about.get(label, "-"), b.about.get(label, "-")
        if before != after:
            notes.append(f"{label}: {before} against {after}")
    if _edges(a) and _edges(b) and _edges(a) != _edges(b):
        notes.append("lengths: other edges, drawn as far as both have them")
    for one, other in ((a, b), (b, a)):
        alone = [family for family in one.families if family not in other.families]
        if alone:
            notes.append(f"only {one.path} has {', '.join(alone)}")
    return notes


def _edges(measured: Measured) -> set[tuple[int, ...]]:
    return {
        histogram.edges
        for facts in measured.families.values()
        for histogram in facts.histograms.values()
    }
