# SPDX-License-Identifier: Apache-2.0
"""The record of `bigtcp-agent netperf`: one JSON object, results beside what the
kernel saw meanwhile, and how everything was set.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import msgspec

from agent.snapshot.cilium import BigTcp
from agent.snapshot.experiment import Latency, TcpRr
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import Family, Lengths, Sizes
from agent.typed_json import Count, Number

SCHEMA: Literal["bigtcp.netperf/v1"] = "bigtcp.netperf/v1"


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted at a device of the client's network namespace in one run, as
    agent.snapshot.model.Lengths has it.

    `longest` is exact where the run set a new maximum, or where probes were
    attached for the run alone; otherwise the upper edge of the slot it lies in.
    """

    device: str
    slots: tuple[Count, ...]
    bytes: Count
    big_bytes: Count
    segments: Count
    longest: Count

    def __post_init__(self) -> None:
        if self.big_bytes > self.bytes:
            raise ValueError("big_bytes: more than bytes")

    @classmethod
    def of(cls, device: str, lengths: Lengths) -> "Counted":
        """What `lengths` says of a device."""
        return cls(device, **lengths.members())

    def lengths(self, edges: tuple[int, ...]) -> Lengths:
        """The same between `edges`; ValueError where there are too few or many."""
        histogram = Histogram(edges, self.slots, self.bytes, self.big_bytes)
        return Lengths(histogram, self.segments, self.longest)


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `ended` in seconds since the epoch. `sent` is net_dev_start_xmit,
    `received` netif_receive_skb: None where no agent saw it. Under eBPF host
    routing nothing names what a pod receives.
    """

    ended: Number
    transactions_per_second: Number
    latency_us: Latency
    elapsed_seconds: Number
    sent: Counted | None
    received: Counted | None


@dataclass(frozen=True, slots=True)
class Series:
    """All runs of one family against one address of the server."""

    address: str
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("there is no run")


@dataclass(frozen=True, slots=True)
class Device:
    """A device, and its size limits in bytes."""

    name: str
    kind: str
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Cilium:
    """Cilium of the node, by family."""

    version: str
    big_tcp: dict[Family, BigTcp]


@dataclass(frozen=True, slots=True)
class Node:
    """What the agent of the node said after the last run: of Cilium, of the
    node's devices, the verdict per family, and ids of findings.
    """

    cilium: Cilium | None
    devices: tuple[Device, ...]
    states: dict[str, str]
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`taken`: when it began, in seconds since the epoch. `version` is ours,
    `netperf` netperf's, `kernel` the running release. `edges` in bytes, empty where
    no agent told any. `devices` are those of the client's network namespace; `node`
    is None where no agent answered.
    """

    schema: Literal["bigtcp.netperf/v1"] = SCHEMA
    name: str
    taken: Number
    version: str
    netperf: str
    kernel: str
    machine: str
    server: str
    test: TcpRr
    edges: tuple[Count, ...]
    families: dict[str, Series]
    devices: tuple[Device, ...]
    node: Node | None

    def __post_init__(self) -> None:
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges: they do not ascend")
        if not self.families:
            raise ValueError("families: there is none")
        for family, series in self.families.items():
            if family not in ("ipv4", "ipv6"):
                raise ValueError(f"families: there is no family {family!r}")
            for number, run in enumerate(series.runs):
                for at, counted in (("sent", run.sent), ("received", run.received)):
                    if counted and len(counted.slots) != len(self.edges) + 1:
                        raise ValueError(
                            f"families.{family}.runs[{number}].{at}.slots: "
                            f"{len(self.edges)} edges need {len(self.edges) + 1} slots"
                        )

    @property
    def runs(self) -> str:
        """How many of each family, such as 5; where one failed: 2 to 3 of 5."""
        counts = sorted({len(series.runs) for series in self.families.values()})
        told = " to ".join(map(str, counts))
        asked = self.test.repeats
        return told if counts == [asked] else f"{told} of {asked}"

    def json(self) -> str:
        """One line of JSON."""
        return json.dumps(msgspec.to_builtins(self))
