# SPDX-License-Identifier: Apache-2.0
"""Intervals hold what they say, and cost no resample what drawing would."""

import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.snapshot.interval import _middles, interval, relative

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(tuple)
POSITIVE = st.lists(st.integers(1, 10**6), min_size=1, max_size=40).map(tuple)


@settings(max_examples=40)  # the first of a length draws
@given(VALUES, VALUES)
def test_an_interval_lies_between_what_was_measured(
    a: tuple[float, ...], b: tuple[float, ...]
) -> None:
    found = interval(a, b)
    assert found.difference == median(b) - median(a)
    assert min(b) - max(a) <= found.low <= found.high <= max(b) - min(a)


@settings(max_examples=40)  # the first of a length draws
@given(VALUES, VALUES, st.integers(1, 1000))
def test_it_moves_and_grows_with_what_was_measured(
    a: tuple[float, ...], b: tuple[float, ...], factor: int
) -> None:
    found = interval(a, b)
    moved = interval(a, tuple(value + factor for value in b))
    grown = interval(*(tuple(factor * value for value in each) for each in (a, b)))
    for now, by_moving, by_growing in (
        (found.low, moved.low, grown.low),
        (found.high, moved.high, grown.high),
    ):
        assert by_moving == pytest.approx(now + factor, abs=1e-6)
        assert by_growing == pytest.approx(now * factor, rel=1e-9, abs=1e-6)


@settings(max_examples=40)  # the first of a length draws
@given(POSITIVE, POSITIVE)
def test_what_is_less_is_less_by_no_more_than_all(
    a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    found, difference = relative(a, b), interval(a, b)
    assert found.difference == pytest.approx(median(b) / median(a) - 1)
    assert min(b) / max(a) - 1 <= found.low <= found.high <= max(b) / min(a) - 1
    assert (found.low > 0, found.high < 0) == (difference.low > 0, difference.high < 0)


@settings(max_examples=40)  # the first of a length draws
@given(VALUES, st.randoms(use_true_random=False))
def test_order_does_not_matter(a: tuple[float, ...], rng: random.Random) -> None:
    shuffled = list(a)
    rng.shuffle(shuffled)
    assert interval(a, a) == interval(shuffled, a)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 31, 100])
def test_resamples_are_those_that_drawing_gives(count: int) -> None:
    """Against the naive bootstrap: the same positions, equally often."""
    rng = random.Random(7)  # noqa: S311  statistics
    naive = [
        median(rng.choices(range(count), k=count))
        for _ in range(len(_middles(count, 1)))
    ]
    ours = [(low + high) / 2 for low, high in _middles(count, 1)]
    for share in (0.025, 0.1, 0.5, 0.9, 0.975):
        at = round(share * (len(naive) - 1))
        assert sorted(ours)[at] == pytest.approx(
            sorted(naive)[at], abs=max(0.5, count / 30)
        )
    spread = sum(abs(value - (count - 1) / 2) for value in ours) / len(ours)
    naively = sum(abs(value - (count - 1) / 2) for value in naive) / len(naive)
    assert spread == pytest.approx(naively, rel=0.03, abs=0.01)


@pytest.mark.parametrize("count", [5, 6, 20])
def test_a_difference_that_is_none_is_seldom_found(count: int) -> None:
    rng = random.Random(11)  # noqa: S311  statistics
    found = 0
    for _ in range(300):
        a, b = ([rng.gauss(100, 3) for _ in range(count)] for _ in "ab")
        span = interval(a, b)
        found += not span.low <= 0 <= span.high
    assert found <= 300 * 0.08
