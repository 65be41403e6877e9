# SPDX-License-Identifier: Apache-2.0
"""The nouns of a Snapshot. All lengths and sizes are bytes."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from agent.snapshot.histogram import Histogram
from agent.typed_json import Count, Number


class Hook(StrEnum):
    """Where an skb was seen; each is called what its tracepoint is called."""

    NET_DEV_START_XMIT = "net_dev_start_xmit"
    NETIF_RECEIVE_SKB = "netif_receive_skb"
    NET_DEV_QUEUE = "net_dev_queue"
    NAPI_GRO_RECEIVE_ENTRY = "napi_gro_receive_entry"


class Family(StrEnum):
    """Protocol of the outermost IP header; `other` is everything else (ARP)."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    OTHER = "other"


class Scope(StrEnum):
    """Whose device it is, as seen from the agent's own network namespace.

    `node`: it stands there; `pods`: its peer stands there and is no uplink;
    `other`: neither, such as another node that shares this kernel (kind), or the
    port of the bridge behind our own uplink.
    """

    NODE = "node"
    PODS = "pods"
    OTHER = "other"


@dataclass(frozen=True, slots=True, order=True)
class DeviceId:
    """A device of this kernel for as long as it runs: (net_cookie, ifindex)."""

    netns: int
    ifindex: int


@dataclass(frozen=True, slots=True)
class Device:
    """What the kernel program read of a device when it first saw it.

    `netns_inode` is the number in /proc/PID/ns/net; `kind` is
    rtnl_link_ops->kind, empty for hardware; `mac` as aa:bb:cc:dd:ee:ff.
    """

    id: DeviceId
    netns_inode: int
    name: str
    kind: str
    mac: str
    peer: DeviceId | None


@dataclass(frozen=True, slots=True)
class Lengths:
    """What was counted of skbs: cumulative since the probes were attached.

    `segments` are the wire packets that the skbs stand for (gso_segs, 1 where
    it is unset); `longest` is the longest L3 length.
    """

    histogram: Histogram
    segments: int = 0
    longest: int = 0

    @classmethod
    def empty(cls, edges: tuple[int, ...]) -> Self:
        """Nothing counted yet."""
        return cls(Histogram.empty(edges))

    @property
    def segments_per_skb(self) -> float | None:
        """Wire packets that an skb stands for, on average; None where none was."""
        count = self.histogram.count
        return self.segments / count if count else None

    def members(self) -> dict[str, Any]:
        """As JSON has it, without the edges."""
        return {
            "slots": self.histogram.slots,
            "bytes": self.histogram.bytes,
            "big_bytes": self.histogram.big_bytes,
            "segments": self.segments,
            "longest": self.longest,
        }

    def add(self, other: Self) -> Self:
        """Both together."""
        return type(self)(
            self.histogram.add(other.histogram),
            self.segments + other.segments,
            max(self.longest, other.longest),
        )

    def since(self, before: Self) -> Self:
        """What came after `before`; `longest` cannot be taken apart and stays."""
        histogram = self.histogram.since(before.histogram)
        segments = self.segments - before.segments
        if histogram is self.histogram or segments < 0:  # they went back: all is new
            return self
        return type(self)(histogram, segments, self.longest)


@dataclass(frozen=True, slots=True, order=True)
class RowKey:
    """What one row of counters is about."""

    device: DeviceId
    hook: Hook
    family: Family


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `limit`: the device's gso (sending hooks) or gro max size for
    the row's family when its latest skb passed; 0 for family `other`.
    """

    key: RowKey
    lengths: Lengths
    limit: int


OTHER_PODS = 0  # where an ifindex is asked for; no device has it

# What foreign devices are counted under that found no place of their own in the
# kernel's maps: admit_foreign() in bpf/skb_length.c. No device has this id.
SHARED_DEVICE = DeviceId(0, 0)


@dataclass(frozen=True, slots=True)
class MapEntries:
    """How many entries a BPF map has, and has room for."""

    used: Count
    limit: Count


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything the maps hold, at one moment.

    `unrecorded`: skbs that are in no row, by reason. `pods_received`: what went
    to each pod, by the ifindex of its host side, `OTHER_PODS` for those beyond
    the cap; empty unless asked for. `maps`: how full the maps are, by their name in
    bpf/skb_length.c: `lengths` has a row for each device, hook and family.
    """

    edges: tuple[int, ...]
    rows: dict[RowKey, Row]
    devices: dict[DeviceId, Device]
    unrecorded: dict[str, int]
    pods_received: dict[tuple[int, Family], Lengths] = field(default_factory=dict)
    maps: dict[str, MapEntries] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counters:
    """rtnl_link_stats64 of a link, as far as the coverage needs it."""

    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """The size limits of a link; None where this kernel has no such limit.

    The generic ones hold for IPv6. The IPv4 ones are new in 6.3.
    """

    gso_max: Count
    gro_max: Count
    tso_max: Count | None
    gso_ipv4_max: Count | None
    gro_ipv4_max: Count | None


@dataclass(frozen=True, slots=True)
class Link:
    """A device of the agent's own namespace, as rtnetlink describes it.

    `parent`: IFLA_LINK, for a veth or netkit the peer's ifindex; `netnsid`:
    IFLA_LINK_NETNSID, set where that is in another namespace. `master`: the
    ifindex of the bond, bridge, vrf or the like that it serves. `in_subnet`: it
    has a global address with neighbours (a prefix shorter than the address).
    `header`: bytes before the L3 header, 14 for Ethernet, 0 without.
    """

    ifindex: int
    name: str
    kind: str
    mac: str
    loopback: bool
    in_subnet: bool
    parent: int | None
    master: int | None
    netnsid: int | None
    header: int
    mtu: int
    sizes: Sizes
    counters: Counters


@dataclass(frozen=True, slots=True)
class Source:
    """How the last read of a source went.

    `up`: it answered this time. `errors`: reads that failed so far. `answered`:
    when it last did, in seconds since the epoch; None: never, or there
    is no such thing any more.
    """

    up: bool
    errors: Count
    answered: Number | None = None
