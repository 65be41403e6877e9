# SPDX-License-Identifier: Apache-2.0
"""The JSON picture of a snapshot read again, and what passed between two. Pure.

`top`, records and `netperf` see an agent only through this JSON
(agent.views.picture): of this host, of another, or of last week.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

from agent.snapshot.histogram import Histogram
from agent.snapshot.model import OTHER_PODS, Lengths, Scope
from agent.snapshot.naming import OTHERS
from agent.snapshot.schema import CounterRow, SnapshotJson
from agent.typed_json import convert

_LEAST_SECONDS = 0.001  # that have a rate
_BIG = 65536  # the edge that views ask for
POD_RECEIVE = "pod_receive"  # beside the hooks: what a pod received, by address


@dataclass(frozen=True, slots=True, order=True)
class LineKey:
    """What a line is about, for as long as the kernel runs."""

    cookie: int
    ifindex: int
    hook: str
    family: str


@dataclass(frozen=True, slots=True)
class Line:
    """Counters of one device, hook and family; `limit` is the device's, in bytes.

    `netns` is the inode of the device's namespace, None while unknown. `pod` is
    "namespace/name", or the host's side where no Cilium names it; "" for a device
    that is no pod's.
    """

    key: LineKey
    device: str
    kind: str
    netns: int | None
    scope: Scope
    pod: str
    limit: int
    lengths: Lengths

    @property
    def name(self) -> str:
        """The pod, or the device, with its namespace where that is not ours."""
        if self.pod:
            return self.pod
        if self.scope is Scope.NODE or self.netns is None:
            return self.device
        return f"{self.device} (netns {self.netns})"


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture: `taken` and `started`, when the agent began to count, are in
    seconds since the epoch, `uptime` is its age when the counters were read.
    `snapshot` is all of it that we know, `picture` the JSON as it came.
    """

    taken: float
    started: float
    uptime: float
    edges: tuple[int, ...]
    lines: dict[LineKey, Line]
    snapshot: SnapshotJson
    picture: Mapping[str, Any]

    @classmethod
    def of(cls, picture: Any) -> Self:
        """From parsed JSON; ValueError says what is wrong with it, and where."""
        told = convert(picture, SnapshotJson)
        edges = told.edges
        if _BIG not in edges or any(low >= high for low, high in pairwise(edges)):
            raise ValueError(f"edges: they do not ascend, or leave out {_BIG}")
        pods: dict[int | None, str] = {pod.ifindex: pod.name for pod in told.pods}
        lines = {}
        for number, row in enumerate(told.counters):
            try:
                line = _line(row, edges, pods)
            except ValueError as err:
                raise ValueError(f"counters[{number}].slots: {err}") from err
            lines[line.key] = line
        return cls(told.taken, told.started, told.uptime, edges, lines, told, picture)

    def since(self, before: Self) -> "Period":
        """What passed since `before`, the sample before this one, or one that is
        not much older: devices that are gone take their counts along.

        Where the agent was restarted meanwhile: all that it counted, in 0 seconds.
        It counts from when its probes are attached, which is before it has an age.
        Less than a millisecond is 0 seconds, too: no rate comes of it.
        """
        if self.started != before.started or self.edges != before.edges:
            return Period(0.0, dict(self.lines))
        seconds = self.uptime - before.uptime
        if seconds < _LEAST_SECONDS:
            seconds = 0.0
        found = {}
        for key, line in self.lines.items():
            then = before.lines.get(key)
            lengths = line.lengths.since(then.lengths) if then else line.lengths
            found[key] = replace(line, lengths=lengths)
        return Period(seconds, found)


@dataclass(frozen=True, slots=True)
class Period:
    """What was counted in so many `seconds`. A rate over 0 seconds is 0."""

    seconds: float
    lines: dict[LineKey, Line]

    def add(self, later: Self) -> Self:
        """Both together; ValueError where their edges differ."""
        lines = self.lines | later.lines
        for key in self.lines.keys() & later.lines.keys():
            lengths = self.lines[key].lengths.add(later.lines[key].lengths)
            lines[key] = replace(later.lines[key], lengths=lengths)
        return type(self)(self.seconds + later.seconds, lines)

    def per_second(self, count: float) -> float:
        """A count of this period as a rate."""
        return count / self.seconds if self.seconds > 0 else 0.0


def _line(
    row: CounterRow, edges: tuple[int, ...], pods: Mapping[int | None, str]
) -> Line:
    histogram = Histogram(edges, row.slots, row.bytes, row.big_bytes)
    pod = ""
    if row.scope is Scope.PODS:
        side = row.ifindex if row.hook == POD_RECEIVE else row.peer
        pod = pods.get(side, "")
    if row.hook == POD_RECEIVE and not pod:
        unnamed = row.device or f"ifindex:{row.ifindex}"
        pod = OTHERS if row.ifindex == OTHER_PODS else unnamed
    return Line(
        LineKey(row.cookie, row.ifindex, row.hook, row.ip_family),
        row.device,
        row.kind,
        row.netns,
        row.scope,
        pod,
        row.limit,
        Lengths(histogram, row.segments, row.longest),
    )
