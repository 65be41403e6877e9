# SPDX-License-Identifier: Apache-2.0
"""The JSON of /api/snapshot, of which `top --record` writes one in each line.

agent.views.picture writes it, everything that asks an agent or opens a record reads
it. Sizes are bytes, times seconds since the epoch. docs/snapshot.schema.json is made
of this module.

Within a version members are only added, and with a default: agents and records of an
earlier day do not have them.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from agent.snapshot.cilium import CiliumAgent, CiliumPod, Wanted
from agent.snapshot.model import Family, MapEntries, Scope, Sizes, Source
from agent.typed_json import Count, Number

SCHEMA: Literal["bigtcp.snapshot/v1"] = "bigtcp.snapshot/v1"
Time = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class FamilyJson(msgspec.Struct, frozen=True):
    """The verdict of an IP family: its state, and the reason in a few words.

    `configured`: the ConfigMap asks for BIG TCP; `enabled`: the Cilium agent runs with
    it; null where nobody says. `bytes` passed lately, `big_bytes` of them in skbs
    above 64 KiB.
    """

    configured: bool | None
    enabled: bool | None
    state: str
    reason: str
    bytes: Count
    big_bytes: Count

    @property
    def big_share(self) -> float | None:
        """Share of the bytes in skbs above 64 KiB; None where nothing passed."""
        return self.big_bytes / self.bytes if self.bytes else None


class FamiliesJson(msgspec.Struct, frozen=True):
    """The verdicts."""

    ipv4: FamilyJson
    ipv6: FamilyJson

    def items(self) -> tuple[tuple[Family, FamilyJson], ...]:
        """Each family with its verdict."""
        return (Family.IPV4, self.ipv4), (Family.IPV6, self.ipv6)


class FindingJson(msgspec.Struct, frozen=True):
    """One thing that is wrong: what was seen, why it matters, what to do."""

    id: str
    severity: str
    families: tuple[str, ...]
    seen: str
    why: str
    remedy: str
    subjects: tuple[str, ...]


class CiliumAgentJson(msgspec.Struct, frozen=True):
    """Should Cilium's agent be on this node, does it answer, and if not: is it known
    to be there (`mute`)? `pod` where the API server was asked for it.
    """

    expected: bool
    answers: bool
    mute: bool
    pod: CiliumPod | None


class DeviceJson(msgspec.Struct, frozen=True):
    """A device of the node, `kind` empty for hardware."""

    name: str
    ifindex: Count
    kind: str
    sizes: Sizes


class PodJson(msgspec.Struct, frozen=True):
    """A pod: namespace/name or, where nobody names it, the host side of its device.

    `limits`: how long its skbs can get; `own`: what its device had when it last sent.
    `started`, by Kubernetes.
    """

    name: str
    interface: str
    ifindex: Count
    started: float | None = None
    limits: dict[Family, Count] = {}
    own: dict[Family, Count | None] = {}


class RecentRow(msgspec.Struct, frozen=True):
    """What passed lately at a hook of a device; `limit` as in the counters."""

    device: str
    netns: Count | None
    scope: Scope
    hook: str
    ip_family: str
    skbs: Count
    bytes: Count
    big_bytes: Count
    big_skbs: Count
    segments: Count
    limit: Count


class RecentJson(msgspec.Struct, frozen=True):
    """What happened in the last `seconds`."""

    seconds: Number
    ip6_too_big: Count = 0
    rows: tuple[RecentRow, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceJson(Source):
    """How the last read of a source went; where it is not up, why."""

    problem: str = ""


class CounterRow(msgspec.Struct, frozen=True):
    """What was counted at a hook of a device since the start. A device that has been
    gone for a while is not there any more.

    `netns` is the inode of the namespace, None before the kernel has told it;
    `cookie` and `ifindex` name the device for as long as the kernel runs, `peer`
    is the ifindex of its other end. What a pod received, where single pods are
    told apart, has the hook pod_receive and the host side of the pod's device.
    """

    device: str
    kind: str
    netns: Count | None
    cookie: Count
    ifindex: Count
    peer: Count | None
    scope: Scope
    hook: str
    ip_family: str
    slots: tuple[Count, ...]
    bytes: Count
    big_bytes: Count
    segments: Count
    longest: Count
    limit: Count


class SnapshotJson(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a node, with its verdict.

    `started`: when the agent began; `uptime`: its age when the counters were read.
    `edges` are the upper edges of the histograms, whose last slot has all that is
    longer. `unknown_pods` have a device that is not here. `unrecorded`: skbs that are
    in no row, by reason.
    """

    schema: Literal["bigtcp.snapshot/v1"]
    version: str
    taken: Time
    started: Time
    uptime: Time
    node: str = ""
    kernel: str
    families: FamiliesJson
    findings: tuple[FindingJson, ...]
    wanted: Wanted | None = None
    cilium: CiliumAgent | None
    cilium_agent: CiliumAgentJson | None = None
    devices: tuple[DeviceJson, ...]
    pods: tuple[PodJson, ...]
    unknown_pods: tuple[str, ...] = ()
    recent: RecentJson
    sources: dict[str, SourceJson]
    attached: dict[str, bool]
    unrecorded: dict[str, Count]
    maps: dict[str, MapEntries] = {}
    edges: tuple[Count, ...]
    counters: tuple[CounterRow, ...]

    def max_gso(self, family: Family) -> int | None:
        """What Cilium's agent has set; None where it does not say."""
        big_tcp = self.cilium and self.cilium.big_tcp.get(family)
        return big_tcp.max_gso if big_tcp else None
