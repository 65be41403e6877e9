# SPDX-License-Identifier: Apache-2.0
"""One moment of this node: what all sources together say."""

from dataclasses import dataclass, field

from agent.snapshot.cilium import Applied, ClusterState, DaemonConfig, Endpoint
from agent.snapshot.model import (
    Device,
    DeviceId,
    Family,
    Hook,
    Lengths,
    Link,
    MapEntries,
    Row,
    RowKey,
    Scope,
    Source,
)


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """The rows of one device of the snapshot.

    `link` is set for devices that stand in the agent's namespace now. `label` is
    how metrics call it: see agent.snapshot.naming; "" outside scope node. In scope
    pods the peer of `device` stands in the agent's namespace, or is None: it left.
    """

    id: DeviceId
    name: str
    scope: Scope
    label: str
    device: Device | None
    link: Link | None
    rows: dict[tuple[Hook, Family], Row]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Bytes that we counted against the link's own counters since we started.

    `counted` includes a link header for each skb, as software devices count; a NIC
    may count the header of each wire packet. Loopback, and devices without
    traffic, have none.
    """

    counted: int
    kernel: int

    @property
    def ratio(self) -> float:
        """1.0 is all of it; `kernel` is never 0."""
        return self.counted / self.kernel


@dataclass(frozen=True, slots=True)
class Recent:
    """What happened in the last `seconds`: what a verdict is made from.

    `rows`: what was counted meanwhile. `ip6_too_big`: IPv6 packets that this
    node would not forward since they were too big (Ip6InTooBigErrors).
    `unrecorded`: skbs that found no row, by reason.
    """

    seconds: float
    rows: dict[RowKey, Lengths]
    ip6_too_big: int
    unrecorded: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of this node. `taken` and `started`, when the agent began, are in
    seconds since the epoch; `uptime` is the age of the agent, in seconds by a clock
    that nobody sets, when these counters were read.

    `retired` holds the counts of devices that are gone: per scope they stay
    in every sum. `attached` says of each hook that was asked for whether it is.
    `pods_received` and `maps` are the reading's. `node` is the host name, `kernel`
    the running release, `shown` the names of the devices that stand alone in metrics.
    `applied`, `runtime` and `cluster` are None where there is no Cilium agent, no file
    of it, no API server; `cilium_left` is False where its directory is empty or
    missing; `stored_endpoints` are the pods of an agent that has not answered yet. Of
    each source that is not up `problems` says why.
    """

    taken: float
    started: float
    uptime: float
    edges: tuple[int, ...]
    devices: tuple[DeviceRows, ...]
    links: tuple[Link, ...]
    retired: dict[tuple[Scope, str, Hook, Family], Lengths]
    unrecorded: dict[str, int]
    attached: dict[Hook, bool]
    sources: dict[str, Source]
    coverage: dict[tuple[str, str], Coverage] = field(default_factory=dict)
    pods_received: dict[tuple[int, Family], Lengths] = field(default_factory=dict)
    maps: dict[str, MapEntries] = field(default_factory=dict)
    node: str = ""
    kernel: str = ""
    shown: frozenset[str] = frozenset()
    recent: Recent = field(default_factory=lambda: Recent(0, {}, 0))
    applied: Applied | None = None
    runtime: DaemonConfig | None = None
    cilium_left: bool = True
    stored_endpoints: tuple[Endpoint, ...] = ()
    cluster: ClusterState | None = None
    problems: dict[str, str] = field(default_factory=dict)

    def total(self, scope: Scope) -> dict[tuple[Hook, Family], Lengths]:
        """Counts of a scope: every device that is there, and those that were."""
        sums: dict[tuple[Hook, Family], Lengths] = {}
        for (its_scope, _, hook, family), lengths in self.retired.items():
            if its_scope is scope:
                before = sums.get((hook, family))
                sums[hook, family] = before.add(lengths) if before else lengths
        for device in self.devices:
            if device.scope is scope:
                add_rows(sums, device.rows)
        return sums


def add_rows(
    sums: dict[tuple[Hook, Family], Lengths], rows: dict[tuple[Hook, Family], Row]
) -> None:
    """Add a device's rows to running sums, in place."""
    for at, row in rows.items():
        sums[at] = sums[at].add(row.lengths) if at in sums else row.lengths
