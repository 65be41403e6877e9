# SPDX-License-Identifier: Apache-2.0
"""Histogram of skb lengths: pure, immutable, exact."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Self


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per slot, and the sum of what was counted.

    `edges` are upper edges in bytes, inclusive (Prometheus' `le`), ascending;
    `slots` are not cumulative and one more than the edges: the last takes all
    that is longer. `bytes` is the sum of the lengths, `big_bytes` the part of
    it in skbs above 64 KiB, which no bucket could tell.
    """

    edges: tuple[int, ...]
    slots: tuple[int, ...]
    bytes: int = 0
    big_bytes: int = 0

    def __post_init__(self) -> None:
        if len(self.slots) != len(self.edges) + 1:
            msg = f"{len(self.edges)} edges need {len(self.edges) + 1} slots"
            raise ValueError(msg)

    @classmethod
    def empty(cls, edges: tuple[int, ...]) -> Self:
        """Nothing counted yet."""
        return cls(edges, (0,) * (len(edges) + 1))

    @property
    def count(self) -> int:
        """How many skbs."""
        return sum(self.slots)

    @property
    def cumulative(self) -> tuple[int, ...]:
        """Skbs up to each edge and, last, all of them."""
        return tuple(accumulate(self.slots))

    def add(self, other: Self) -> Self:
        """Both together; ValueError where the edges differ."""
        return self._with(other, 1)

    def since(self, before: Self) -> Self:
        """What came after `before`, an earlier state of the same counters.

        Where a counter went back (the agent was restarted), all of `self` is
        new: the answer is never negative.
        """
        mine = (*self.slots, self.bytes, self.big_bytes)
        its = (*before.slots, before.bytes, before.big_bytes)
        if any(now < then for now, then in zip(mine, its, strict=True)):
            return self
        return self._with(before, -1)

    def coarser(self, edges: tuple[int, ...]) -> Self:
        """The same counts between fewer edges, which must be some of ours."""
        cumulative = dict(zip(self.edges, self.cumulative, strict=False))
        upto = [*(cumulative[edge] for edge in edges), self.count]
        slots = (now - below for now, below in zip(upto, [0, *upto], strict=False))
        return type(self)(edges, tuple(slots), self.bytes, self.big_bytes)

    def above(self, edge: int) -> int:
        """How many skbs are longer than `edge`, which must be one of the edges."""
        return sum(self.slots[self.edges.index(edge) + 1 :])

    def share_above(self, edge: int) -> float | None:
        """Share of the skbs that are longer than `edge`; None where there are none."""
        return self.above(edge) / self.count if self.count else None

    @property
    def big_share(self) -> float | None:
        """Share of the bytes in skbs above 64 KiB; None where there are none."""
        # The kernel counts while both are read: `big_bytes` may be an skb ahead.
        return min(1.0, self.big_bytes / self.bytes) if self.bytes else None

    def _with(self, other: Self, sign: int) -> Self:
        if self.edges != other.edges:
            msg = "histograms with different edges"
            raise ValueError(msg)
        slots = zip(self.slots, other.slots, strict=True)
        return type(self)(
            self.edges,
            tuple(mine + sign * its for mine, its in slots),
            self.bytes + sign * other.bytes,
            self.big_bytes + sign * other.big_bytes,
        )


def used_slots(histograms: Iterable[Histogram]) -> range:
    """From the first slot that has a count in any of them to the last. They have the
    same edges.
    """
    used = [
        slot
        for slot, counts in enumerate(zip(*(h.slots for h in histograms), strict=True))
        if any(counts)
    ]
    return range(used[0], used[-1] + 1) if used else range(0)
