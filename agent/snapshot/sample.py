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

SCHEMA = "bigtcp.snapshot/v1"
_LATEST = 1e11  # seconds since the epoch that are a time
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
    `picture` is all of it, as JSON has it.
    """

    taken: float
    started: float
    uptime: float
    edges: tuple[int, ...]
    lines: dict[LineKey, Line]
    picture: Mapping[str, Any]

    @classmethod
    def of(cls, picture: object) -> Self:
        """From parsed JSON; ValueError says what is wrong with it, and where."""
        schema = picture.get("schema") if isinstance(picture, dict) else None
        if not isinstance(picture, dict) or schema != SCHEMA:
            raise ValueError(f"its schema is {schema!r}, not {SCHEMA}")
        try:
            edges = _edges(picture["edges"])
            pods = {int(pod["ifindex"]): str(pod["name"]) for pod in picture["pods"]}
            lines = [_line(row, edges, pods) for row in picture["counters"]]
            _require_told(picture)
            taken, started, uptime = (
                _number(picture[at]) for at in ("taken", "started", "uptime")
            )
        except KeyError as err:
            raise ValueError(f"{err} is missing") from err
        except (TypeError, ValueError, AttributeError, OverflowError) as err:
            raise ValueError(f"it makes no sense: {err}") from err
        if not all(0 <= time < _LATEST for time in (taken, started, uptime)):
            raise ValueError("its time is no time")
        by_key = {line.key: line for line in lines}
        return cls(taken, started, uptime, edges, by_key, picture)

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


def _require_told(picture: dict[str, Any]) -> None:
    """What views read of a picture beside the counters is there and of its kind."""
    _text(picture["kernel"])
    cilium = picture["cilium"]
    if cilium is not None:
        _text(cilium["version"])
    if set(picture["families"]) != {"ipv4", "ipv6"}:
        raise ValueError(f"families {', '.join(picture['families'])}")
    for name, family in picture["families"].items():
        _require_family(family)
        if cilium is not None:
            _count(cilium["big_tcp"][name]["max_gso"])
    for finding in picture["findings"]:
        for at in ("id", "severity", "seen", "why", "remedy"):
            _text(finding[at])
        for each in (*finding["families"], *finding["subjects"]):
            _text(each)


def _require_family(family: dict[str, Any]) -> None:
    for at in ("state", "reason"):
        _text(family[at])
    for at in ("bytes", "big_bytes"):
        _count(family[at])
    for at in ("configured", "enabled"):
        if family[at] not in (None, True, False):
            raise ValueError(f"{at} is {family[at]!r}")


def _text(value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")


def _count(value: object) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, int) or not whole or not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is no count")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _edges(found: list[object]) -> tuple[int, ...]:
    edges = tuple(_count(edge) for edge in found)
    if _BIG not in edges or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"edges do not ascend, or leave out {_BIG}")
    return edges


def _line(row: dict[str, Any], edges: tuple[int, ...], pods: dict[int, str]) -> Line:
    histogram = Histogram(
        edges,
        tuple(_count(count) for count in row["slots"]),
        _count(row["bytes"]),
        _count(row["big_bytes"]),
    )
    scope, hook, peer = Scope(row["scope"]), str(row["hook"]), row["peer"]
    ifindex = int(row["ifindex"])
    pod = ""
    if scope is Scope.PODS:
        side = ifindex if hook == POD_RECEIVE else peer
        pod = pods.get(side, "")
    device = str(row["device"])
    if hook == POD_RECEIVE and not pod:
        pod = OTHERS if ifindex == OTHER_PODS else device or f"ifindex:{ifindex}"
    return Line(
        LineKey(int(row["cookie"]), ifindex, hook, str(row["ip_family"])),
        device,
        str(row["kind"]),
        None if row["netns"] is None else int(row["netns"]),
        scope,
        pod,
        int(row["limit"]),
        Lengths(histogram, _count(row["segments"]), _count(row["longest"])),
    )
