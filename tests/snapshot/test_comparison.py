# SPDX-License-Identifier: Apache-2.0
"""What a difference means, and what cannot be compared."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BadValueError
from agent.snapshot.comparison import (
    BIG_SHARE,
    LATENCIES,
    LONGEST,
    SEGMENTS,
    TRANSACTIONS,
    Facts,
    Measured,
    Metric,
    Row,
    Verdict,
    compare,
)

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(tuple)
P99 = LATENCIES["p99"]


@settings(max_examples=40)  # the first of a length draws
@given(VALUES)
def test_the_same_twice_is_no_difference(a: tuple[float, ...]) -> None:
    row = Row.of(TRANSACTIONS, a, a)
    assert row.interval.difference == 0
    expected = Verdict.NO_DIFFERENCE if len(a) > 2 else Verdict.TOO_FEW_RUNS
    assert row.verdict is expected


def test_a_clear_difference_is_found() -> None:
    a, b = (100.0, 101.0, 99.0, 102.0, 98.0), (130.0, 131.0, 129.0, 128.0, 133.0)
    row = Row.of(TRANSACTIONS, a, b)
    assert row.verdict is Verdict.BETTER
    assert row.percent
    assert row.percent.difference == pytest.approx(30)
    assert 20 < row.percent.low < 30 < row.percent.high < 40
    assert Row.of(TRANSACTIONS, b, a).verdict is Verdict.WORSE
    assert Row.of(P99, a, b).verdict is Verdict.WORSE
    assert Row.of(P99, b, a).verdict is Verdict.BETTER
    assert Row.of(P99, b[:2], a).verdict is Verdict.TOO_FEW_RUNS
    assert Row.of(P99, b, a[:2]).verdict is Verdict.TOO_FEW_RUNS


def test_shares_differ_by_points_and_nothing_has_no_per_cent() -> None:
    points = Row.of(BIG_SHARE, (0.0,) * 3, (0.75,) * 3)
    assert points.percent
    assert points.percent.difference == 75
    assert points.verdict is Verdict.BETTER
    nothing = Row.of(TRANSACTIONS, (0.0,) * 3, (5.0,) * 3)
    assert nothing.percent is None
    assert nothing.verdict is Verdict.BETTER


@pytest.mark.parametrize(
    ("metric", "a", "b", "verdict"),
    [
        (P99, 22.0, 23.0, Verdict.NO_DIFFERENCE),  # whole microseconds
        (P99, 22.0, 24.0, Verdict.WORSE),
        (LATENCIES["mean"], 22.0, 22.5, Verdict.WORSE),
        (BIG_SHARE, 0.9991, 0.9995, Verdict.NO_DIFFERENCE),
        (BIG_SHARE, 0.9, 0.95, Verdict.BETTER),
        (SEGMENTS, 28.51, 28.52, Verdict.NO_DIFFERENCE),
        (SEGMENTS, 14.5, 28.5, Verdict.BETTER),
        (LONGEST, 80_052.0, 81_920.0, Verdict.NOT_JUDGED),  # exact, and an edge
        (LONGEST, 65_212.0, 80_052.0, Verdict.NOT_JUDGED),
    ],
)
def test_what_cannot_be_measured_is_no_difference(
    metric: Metric, a: float, b: float, verdict: Verdict
) -> None:
    """However often it is so: the interval of equal runs is a point."""
    assert Row.of(metric, (a,) * 5, (b,) * 5).verdict is verdict


def measured(path: str, **facts: dict[Metric, tuple[float, ...]]) -> Measured:
    return Measured(
        path=path,
        name=path,
        kind="netperf",
        test="TCP_RR 80000:80000",
        about={"seconds a run": "1", "kernel": path},
        families={family: Facts(values, {}) for family, values in facts.items()},
    )


A = measured("a", ipv4={TRANSACTIONS: (1.0, 2.0), P99: (3.0,)}, ipv6={P99: (4.0,)})
B = measured("b", ipv4={TRANSACTIONS: (2.0, 3.0), BIG_SHARE: (0.5,)})


def test_what_both_have_is_compared() -> None:
    found = compare(A, B)
    assert {family: [row.metric for row in rows] for family, rows in found.rows.items()}
    (row,) = found.rows["ipv4"]
    assert (row.metric, row.a, row.b) == (TRANSACTIONS, (1.0, 2.0), (2.0, 3.0))
    assert found.throughput == {"ipv4": row}
    assert found.notes == ("only a has ipv6",)
    assert compare(B, A).notes == ("only a has ipv6",)


def test_what_else_differs_is_told() -> None:
    longer = replace(B, about={"seconds a run": "9"})
    assert "seconds a run: 1 against 9" in compare(A, longer).notes


@pytest.mark.parametrize(
    ("b", "why"),
    [
        (replace(B, kind="top"), "a is a record of netperf, b one of top"),
        (replace(B, test="TCP_RR 1:1"), "a measured TCP_RR 80000:80000, b measured"),
        (measured("b", ipv6={}), "a is about ipv4, b about ipv6"),
    ],
)
def test_what_cannot_be_compared(b: Measured, why: str) -> None:
    a = measured("a", ipv4={})
    with pytest.raises(BadValueError, match=why):
        compare(a, b)
