# SPDX-License-Identifier: Apache-2.0
"""What passes now, a row per device or pod, hook and family: from sample to sample.

Pure. Rates are those between the last two samples.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent.snapshot.model import Hook, Scope
from agent.snapshot.sample import POD_RECEIVE, Line, LineKey, Period, Sample

TREND = 60  # samples that a row's history holds
HOOKS = {  # in the order of a packet's way, with the short name of each
    str(Hook.NET_DEV_QUEUE): "queue",
    str(Hook.NET_DEV_START_XMIT): "tx",
    str(Hook.NAPI_GRO_RECEIVE_ENTRY): "gro",
    str(Hook.NETIF_RECEIVE_SKB): "rx",
    POD_RECEIVE: "pod rx",
}
_FAMILIES = {"ipv4": "v4", "ipv6": "v6"}
_SUMMED = -1  # cookie and ifindex of a sum: no device has them


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `skbs` and `bytes` are per second, None while there is no rate yet.

    `share` is that of the bytes in skbs above 64 KiB, 0 to 1, `packets` the wire
    packets per skb: None where nothing passed. `longest` is since the agent began
    to count. `trend` holds the shares of the samples before, oldest first.
    `silent`: seconds since a packet was last seen. `line` is what passed,
    `total` what was counted since the agent began.
    """

    key: LineKey
    name: str
    hook: str
    family: str
    scope: Scope
    limit: int
    skbs: float | None
    bytes: float | None
    share: float | None
    longest: int
    packets: float | None
    trend: tuple[float | None, ...]
    silent: float
    line: Line
    total: Line

    @property
    def summed(self) -> bool:
        """It stands for all devices of scope other."""
        return self.key.cookie == _SUMMED


class Traffic:
    """Takes one sample after the other, and remembers what a trend needs."""

    def __init__(self) -> None:
        self.sample: Sample | None = None
        self.seconds = 0.0  # between the last two samples
        self.rows: tuple[Row, ...] = ()
        self._trends: dict[LineKey, deque[float | None]] = {}
        self._active: dict[LineKey, float] = {}
        self._elapsed = 0.0  # by the agent's clock that does not jump

    def forget(self) -> None:
        """What comes next has nothing to do with what was."""
        self.sample, self.seconds, self.rows = None, 0.0, ()
        self._trends, self._active = {}, {}

    def take(self, sample: Sample) -> None:
        """The next sample; the rows are those of the time since the last one."""
        self.put(sample, sample.since(self.sample) if self.sample else None)

    def put(self, sample: Sample, period: Period | None) -> None:
        """A sample, and what passed in the period that it ends."""
        self.sample = sample
        self.seconds = period.seconds if period else 0.0
        self._elapsed += self.seconds
        passed = period.lines if period and period.seconds else None
        total = sample.lines | _sums(sample.lines.values())
        if passed is not None:
            passed = passed | _sums(passed.values())
        self._trends = {
            key: self._trends.get(key, deque(maxlen=TREND)) for key in total
        }
        self._active = {key: self._active.get(key, self._elapsed) for key in total}
        self.rows = tuple(
            self._row(line, period if passed else None, passed)
            for line in total.values()
        )

    def _row(
        self, total: Line, period: Period | None, passed: dict[LineKey, Line] | None
    ) -> Row:
        assert self.sample is not None
        key = total.key
        line = passed[key] if passed else total
        histogram = line.lengths.histogram
        count = histogram.count
        # net_dev_queue counts the big ones alone: its share would always be 1.
        queue = key.hook == Hook.NET_DEV_QUEUE
        share = None if queue or not passed else histogram.big_share
        if passed:
            self._trends[key].append(share)
            if count:
                self._active[key] = self._elapsed
        return Row(
            key=key,
            name=shown(line.name) if key.cookie != _SUMMED else "(others)",
            hook=HOOKS.get(key.hook, shown(key.hook)),
            family=_FAMILIES.get(key.family, "-"),
            scope=line.scope,
            limit=line.limit,
            skbs=period.per_second(count) if period else None,
            bytes=period.per_second(histogram.bytes) if period else None,
            share=share,
            longest=line.lengths.longest,
            packets=line.lengths.segments_per_skb if passed else None,
            trend=tuple(self._trends[key]),
            silent=self._elapsed - self._active[key],
            line=line,
            total=total,
        )


def shown(name: str) -> str:
    """A name of the kernel's as a terminal can bear it, a column per character."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in name)


def _sums(lines: Iterable[Line]) -> dict[LineKey, Line]:
    """The lines of scope other, one for each hook and family."""
    sums: dict[LineKey, Line] = {}
    for line in lines:
        if line.scope is Scope.OTHER:
            key = replace(line.key, cookie=_SUMMED, ifindex=_SUMMED)
            before = sums.get(key)
            if before is None:
                sums[key] = replace(line, key=key, device="(others)", netns=None)
                continue
            sums[key] = replace(
                before,
                lengths=before.lengths.add(line.lengths),
                limit=before.limit if before.limit == line.limit else 0,
            )
    return sums
