# SPDX-License-Identifier: Apache-2.0
"""The JSON picture of a snapshot read again, and what passed between two. Pure.

`top`, records and `netperf` see an agent only through this JSON
(agent.views.picture): of this host, of another, or of last week.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from agent.snapshot.histogram import Histogram
from agent.snapshot.model import Lengths, Scope

SCHEMA = "bigtcp.snapshot/v1"
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
    seconds since the epoch. `picture` is all of it, as JSON has it.
    """

    taken: float
    started: float
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
            edges = tuple(int(edge) for edge in picture["edges"])
            pods = {int(pod["ifindex"]): str(pod["name"]) for pod in picture["pods"]}
            lines = [_line(row, edges, pods) for row in picture["counters"]]
            taken, started = float(picture["taken"]), float(picture["started"])
        except KeyError as err:
            raise ValueError(f"{err} is missing") from err
        except (TypeError, ValueError, AttributeError) as err:
            raise ValueError(f"it makes no sense: {err}") from err
        if not math.isfinite(taken) or not math.isfinite(started):
            raise ValueError("its time is no time")
        return cls(taken, started, edges, {line.key: line for line in lines}, picture)

    def since(self, before: Self) -> "Period":
        """What passed since `before`, an earlier sample.

        Where the agent was restarted meanwhile, what it counted since its start.
        """
        seconds = max(0.0, self.taken - before.taken)
        known = before.lines
        if self.started != before.started or self.edges != before.edges:
            known = {}
            seconds = min(seconds, max(0.0, self.taken - self.started))
        found = {}
        for key, line in self.lines.items():
            then = known.get(key)
            lengths = line.lengths.since(then.lengths) if then else line.lengths
            found[key] = replace(line, lengths=lengths)
        return Period(seconds, found)


@dataclass(frozen=True, slots=True)
class Period:
    """What was counted in so many `seconds`. A rate over 0 seconds is 0."""

    seconds: float
    lines: dict[LineKey, Line]

    def per_second(self, count: float) -> float:
        """A count of this period as a rate."""
        return count / self.seconds if self.seconds > 0 else 0.0


def _line(row: dict[str, Any], edges: tuple[int, ...], pods: dict[int, str]) -> Line:
    histogram = Histogram(
        edges,
        tuple(int(count) for count in row["slots"]),
        int(row["bytes"]),
        int(row["big_bytes"]),
    )
    scope, hook, peer = Scope(row["scope"]), str(row["hook"]), row["peer"]
    ifindex = int(row["ifindex"])
    pod = ""
    if scope is Scope.PODS:
        side = ifindex if hook == POD_RECEIVE else peer
        pod = pods.get(side, str(row["device"]) if hook == POD_RECEIVE else "")
    return Line(
        LineKey(int(row["cookie"]), ifindex, hook, str(row["ip_family"])),
        str(row["device"]),
        str(row["kind"]),
        None if row["netns"] is None else int(row["netns"]),
        scope,
        pod,
        int(row["limit"]),
        Lengths(histogram, int(row["segments"]), int(row["longest"])),
    )
