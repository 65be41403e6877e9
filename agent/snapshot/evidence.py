# SPDX-License-Identifier: Apache-2.0
"""What a Snapshot proves about BIG TCP, one IP family at a time. Pure."""

from dataclasses import dataclass
from functools import cached_property

from agent.snapshot.cilium import Endpoint
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import DeviceId, Family, Hook, Link, RowKey, Scope
from agent.snapshot.snapshot import DeviceRows, Snapshot

LEGACY = 65536  # an skb above this is big
TARGET = 196608  # what Cilium sets where the devices can
FAMILIES = (Family.IPV4, Family.IPV6)
# Less than this is no evidence: a qdisc may hold a few skbs at any moment.
ENOUGH_SKBS = 10
ENOUGH_BYTES = 10_000_000
_TUNNELS = ("cilium_vxlan", "cilium_geneve")
_PAIRS = ("veth", "netkit")


@dataclass(frozen=True, slots=True)
class Cut:
    """A device where big skbs were queued and left in pieces: software GSO."""

    device: DeviceRows
    queued: int
    sent: int
    limit: int  # of the device, for this family; bytes

    @property
    def name(self) -> str:
        """The device, and where it stands if not in our namespace."""
        if self.device.scope is Scope.NODE or self.device.device is None:
            return self.device.name
        return f"{self.device.name} (netns {self.device.device.netns_inode})"


@dataclass(frozen=True, slots=True)
class PodLimit:
    """How long the skbs of a pod can get, by its device and by the host's side.

    `own` is what the pod's device had when it last sent, None where it has not
    sent yet. Both in bytes, by family. `started`, by Kubernetes: seconds since the
    epoch, None where it was not asked.
    """

    name: str  # namespace/pod; without Cilium the host's side
    interface: str
    ifindex: int
    own: dict[Family, int | None]
    host: dict[Family, int]
    started: float | None

    def limit(self, family: Family) -> int:
        """The smaller of the two."""
        own = self.own[family]
        return self.host[family] if own is None else min(own, self.host[family])


def gso_size(link: Link, family: Family) -> int:
    """The longest skb of a family that the link sends in one piece."""
    if family is Family.IPV4:
        return link.sizes.gso_ipv4_max or LEGACY
    return link.sizes.gso_max


def gro_size(link: Link, family: Family) -> int:
    """The longest skb of a family that GRO builds on the link."""
    if family is Family.IPV4:
        return link.sizes.gro_ipv4_max or LEGACY
    return link.sizes.gro_max


class Evidence:
    """Answers about one Snapshot; each is computed once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.applied = snapshot.applied
        cluster = snapshot.cluster
        self.wanted = cluster.wanted if cluster else None
        self._devices = {device.id: device for device in snapshot.devices}

    def supported(self, family: Family) -> bool:
        """Does this kernel have BIG TCP? As Cilium asks: by what its links have."""
        if family is Family.IPV4:
            return any(link.sizes.gso_ipv4_max for link in self.snapshot.links)
        return any(link.sizes.tso_max for link in self.snapshot.links)

    def configured(self, family: Family) -> bool | None:
        """The ConfigMap's word, node configs included; None without one."""
        if self.wanted is None or not self.wanted.found:
            return None
        return self.wanted.flag(f"enable-{family}-big-tcp")

    def running(self, family: Family) -> bool | None:
        """The flag with which Cilium's agent runs, by its own word or by the file
        that it wrote when it started; None where neither tells.
        """
        if self.applied is not None:
            return self.applied.big_tcp[family].enabled
        runtime = self.snapshot.runtime
        return runtime.config.big_tcp.get(family) if runtime else None

    def asked(self, family: Family) -> bool:
        """Does anybody want it: the ConfigMap, or the Cilium agent as it runs?"""
        return bool(self.configured(family)) or bool(self.running(family))

    def effective(self, family: Family) -> bool:
        """Did Cilium get what it wanted? Its `enabled` is only the user's flag.

        Where its agent does not answer, the native devices tell.
        """
        if not self.supported(family):
            return False
        if self.applied is not None:
            big_tcp = self.applied.big_tcp[family]
            return big_tcp.enabled and big_tcp.max_gso > LEGACY
        return any(gso_size(link, family) > LEGACY for link in self.natives)

    @cached_property
    def natives(self) -> tuple[Link, ...]:
        """Links that Cilium sets BIG TCP on; without its word, the uplinks."""
        links = self.snapshot.links
        if self.applied is not None and self.applied.devices:
            return tuple(link for link in links if link.name in self.applied.devices)
        return tuple(link for link in links if link.in_subnet and not link.loopback)

    @cached_property
    def tunnels(self) -> tuple[Link, ...]:
        """Cilium's tunnel devices."""
        return tuple(link for link in self.snapshot.links if link.name in _TUNNELS)

    def drifted(self, family: Family) -> tuple[Link, ...]:
        """Native devices at 64 KiB although Cilium has raised them."""
        if self.applied is None or not self.effective(family):
            return ()
        return tuple(
            link
            for link in self.natives
            if min(gso_size(link, family), gro_size(link, family)) <= LEGACY
        )

    def cuts(self, family: Family) -> tuple[Cut, ...]:
        """Devices that cut big skbs lately: ours and, where we have big ones at
        all, those of any namespace of this kernel.
        """
        found = []
        ours_are_big = self.traffic(family)[1] > 0
        for key, lengths in self.snapshot.recent.rows.items():
            device = self._devices.get(key.device)
            if key.hook is not Hook.NET_DEV_QUEUE or key.family is not family:
                continue
            queued = lengths.histogram.above(LEGACY)
            sent = self._recent(key.device, Hook.NET_DEV_START_XMIT, family)
            left = sent.above(LEGACY) if sent else 0
            if device is None or (device.scope is Scope.OTHER and not ours_are_big):
                continue
            if queued >= ENOUGH_SKBS and left < queued / 2:
                row = device.rows[Hook.NET_DEV_QUEUE, family]
                found.append(Cut(device, queued, left, row.limit))
        return tuple(sorted(found, key=lambda cut: cut.device.id))

    def _recent(self, at: DeviceId, hook: Hook, family: Family) -> Histogram | None:
        lengths = self.snapshot.recent.rows.get(RowKey(at, hook, family))
        return lengths.histogram if lengths else None

    def traffic(self, family: Family) -> tuple[int, int]:
        """Bytes lately, and how many of them in big skbs, on the devices of this
        node and its pods: the larger of what they sent and what they received.
        """
        sums = {Hook.NET_DEV_START_XMIT: [0, 0], Hook.NETIF_RECEIVE_SKB: [0, 0]}
        for key, lengths in self.snapshot.recent.rows.items():
            device = self._devices.get(key.device)
            if device is None or device.scope is Scope.OTHER or key.family != family:
                continue
            if key.hook in sums:
                sums[key.hook][0] += lengths.histogram.bytes
                sums[key.hook][1] += lengths.histogram.big_bytes
        sent, received = sums.values()
        return max(sent[0], received[0]), max(sent[1], received[1])

    def unmerged(self, family: Family) -> tuple[Link, ...]:
        """Native devices that received much, and GRO merged none of it."""
        found = []
        for link in self.natives:
            for key, lengths in self.snapshot.recent.rows.items():
                device = self._devices.get(key.device)
                if (
                    device is not None
                    and device.link is link
                    and (key.hook, key.family) == (Hook.NETIF_RECEIVE_SKB, family)
                    and lengths.histogram.bytes >= ENOUGH_BYTES
                    and lengths.segments == lengths.histogram.count
                    and lengths.histogram.above(1500) == 0
                ):
                    found.append(link)
        return tuple(found)

    @cached_property
    def pods(self) -> tuple[PodLimit, ...]:
        """Pods of this node that have a device of their own, by name."""
        by_index = {link.ifindex: link for link in self.snapshot.links}
        if self.applied is not None:
            found = [
                self._pod(f"{endpoint.namespace}/{endpoint.pod}", link)
                for endpoint in self.applied.endpoints
                if (link := _host_side(endpoint, by_index)) is not None
            ]
        else:
            found = [
                self._pod(link.name, link)
                for link in self.snapshot.links
                if link.kind in _PAIRS
                and link.netnsid is not None
                and not link.in_subnet
            ]
        return tuple(sorted(found, key=lambda pod: pod.name))

    def _pod(self, name: str, link: Link) -> PodLimit:
        own: dict[Family, int | None] = dict.fromkeys(FAMILIES)
        for device in self.snapshot.devices:
            if (
                device.scope is Scope.PODS
                and device.device
                and device.device.peer
                and device.device.peer.ifindex == link.ifindex
            ):
                for family in FAMILIES:
                    row = device.rows.get((Hook.NET_DEV_START_XMIT, family))
                    own[family] = row.limit if row else None
        host = {family: gso_size(link, family) for family in FAMILIES}
        started = self._started.get(name)
        return PodLimit(name, link.name, link.ifindex, own, host, started)

    @cached_property
    def _started(self) -> dict[str, float | None]:
        cluster = self.snapshot.cluster
        pods = (cluster.pods if cluster else None) or ()
        return {f"{pod.namespace}/{pod.name}": pod.started for pod in pods}

    def legacy_pods(self, family: Family) -> tuple[PodLimit, ...]:
        """Pods that were made before BIG TCP: nothing but a restart raises them."""
        if not self.effective(family):
            return ()
        return tuple(pod for pod in self.pods if pod.limit(family) <= LEGACY)

    @cached_property
    def unknown_pods(self) -> tuple[str, ...]:
        """Pods that Cilium serves by a device that is not here: of what size?"""
        here = {link.ifindex for link in self.snapshot.links}
        endpoints = self.applied.endpoints if self.applied is not None else ()
        return tuple(
            sorted(
                f"{endpoint.namespace}/{endpoint.pod}"
                for endpoint in endpoints
                if endpoint.pod and endpoint.ifindex not in here
            )
        )

    def dropped(self, family: Family) -> int:
        """Big packets that routing refused lately: IPv6 ones, for their length."""
        if family is not Family.IPV6 or not self.traffic(family)[1]:
            return 0
        return self.snapshot.recent.ip6_too_big


def _host_side(endpoint: Endpoint, links: dict[int, Link]) -> Link | None:
    return links.get(endpoint.ifindex) if endpoint.pod else None
