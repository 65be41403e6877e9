# SPDX-License-Identifier: Apache-2.0
"""What a Snapshot proves about BIG TCP, one IP family at a time. Pure."""

from dataclasses import dataclass
from functools import cached_property

from agent.snapshot.cilium import OWN_DEVICES, CiliumPod, Endpoint
from agent.snapshot.datapath import Datapath, as_it_runs, as_it_would_start
from agent.snapshot.endpoints import pod_endpoints
from agent.snapshot.model import Family, Hook, Lengths, Link, Scope
from agent.snapshot.snapshot import DeviceRows, Snapshot

LEGACY = 65536  # an skb above this is big
TARGET = 196608  # what Cilium sets where the devices can
FAMILIES = (Family.IPV4, Family.IPV6)
# Less than this is no evidence: a qdisc may hold a few skbs at any moment, and a
# path may have another MTU.
ENOUGH_SKBS = 10
ENOUGH_BYTES = 10_000_000
_ACKNOWLEDGEMENT = 512  # no longer than this; an edge of the histograms
_TUNNELS = ("cilium_vxlan", "cilium_geneve")
_HOST_DEVICE = "cilium_host"
_PAIRS = ("veth", "netkit")


@dataclass(frozen=True, slots=True)
class PodLimit:
    """How long the skbs of a pod can get, by its device and by the host's side.

    `own` is what the pod's device had when it last sent, None where it has not
    sent yet. Both in bytes, by family. `started`, by Kubernetes: seconds since the
    epoch, None where it was not asked.
    """

    name: str  # namespace/pod; where nobody names it the host's side
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
        self.devices = {device.id: device for device in snapshot.devices}

    def supported(self, family: Family) -> bool:
        """Does this kernel have BIG TCP? As Cilium asks: by what its links have."""
        if family is Family.IPV4:
            return any(link.sizes.gso_ipv4_max for link in self.snapshot.links)
        return any(link.sizes.tso_max for link in self.snapshot.links)

    @cached_property
    def has_cilium(self) -> bool:
        """Is Cilium on this node, has it left anything, or a pod that should run?"""
        return (
            self.snapshot.cilium_left
            or self.cilium_pod is not None
            or self.applied is not None
            or self.snapshot.runtime is not None
            or any(link.name == _HOST_DEVICE for link in self.snapshot.links)
        )

    def configured(self, family: Family) -> bool | None:
        """The ConfigMap's word, node configs included; None without one, and where
        it does not concern this node: it is the cluster's, and some nodes run no
        Cilium on purpose.
        """
        if self.wanted is None or not self.wanted.found or not self.has_cilium:
            return None
        return self.wanted.flag(f"enable-{family}-big-tcp")

    def running(self, family: Family) -> bool | None:
        """The flag with which Cilium's agent runs, by its own word or by the file
        that it wrote when it started; None where neither tells.
        """
        if self.applied is not None:
            return self.applied.big_tcp[family].enabled
        runtime = self.snapshot.runtime
        return runtime.big_tcp.get(family) if runtime else None

    def asked(self, family: Family) -> bool:
        """Does anybody want it: the ConfigMap, or the Cilium agent as it runs?"""
        return bool(self.configured(family)) or bool(self.running(family))

    @cached_property
    def asked_for(self) -> tuple[Family, ...]:
        """The families that anybody wants."""
        return tuple(family for family in FAMILIES if self.asked(family))

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

    def refused(self, family: Family) -> bool:
        """Wanted, and the kernel could, and yet it is not applied."""
        able = self.asked(family) and self.supported(family)
        return able and not self.effective(family)

    @cached_property
    def answers(self) -> bool:
        """Does Cilium's agent answer? What it said last is kept beyond that."""
        source = self.snapshot.sources.get("cilium")
        return self.applied is not None and (source is None or source.up)

    @cached_property
    def mute(self) -> bool:
        """Cilium belongs on this node, and its agent does not answer: it refuses to
        start, was stopped, hangs, or is being restarted.
        """
        source = self.snapshot.sources.get("cilium")
        if self.answers or source is None or not self.has_cilium:
            return False
        # Neither missing nor failed: it has not been asked to the end yet.
        problem = self.snapshot.problems.get("cilium")
        return self.applied is not None or source.errors > 0 or not problem

    @cached_property
    def cilium_pod(self) -> CiliumPod | None:
        """The pod of Cilium's agent, where the API server was asked for it: of
        several, as while it is replaced, the one that does not run.
        """
        cluster = self.snapshot.cluster
        pods = (cluster.cilium_pods if cluster else None) or ()
        return max(
            pods, key=lambda pod: (pod.waiting != "", pod.restarts), default=None
        )

    @property
    def no_cilium_objects(self) -> bool:
        """Does the API server have neither Cilium's ConfigMap nor a pod of Cilium on
        this node? False where it was not asked for both.
        """
        cluster = self.snapshot.cluster
        return (
            self.wanted is not None
            and not self.wanted.found
            and cluster is not None
            and cluster.cilium_pods == ()
        )

    @cached_property
    def datapath(self) -> Datapath:
        """How Cilium moves packets, or would as it was told."""
        if self.answers and self.applied is not None:
            return as_it_runs(self.applied)
        return as_it_would_start(self.applied, self.snapshot.runtime, self.wanted)

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
        """Native devices that are lower than Cilium has set them."""
        if self.applied is None or not self.effective(family):
            return ()
        told = self.applied.big_tcp[family]
        max_gro = told.max_gro or LEGACY + 1  # not told: anything big
        return tuple(
            link
            for link in self.natives
            if gso_size(link, family) < told.max_gso or gro_size(link, family) < max_gro
        )

    def reset(self, family: Family) -> tuple[Link, ...]:
        """Those of them at 64 KiB: nothing is big there. The others still can."""
        return tuple(
            link
            for link in self.drifted(family)
            if min(gso_size(link, family), gro_size(link, family)) <= LEGACY
        )

    def traffic(self, family: Family) -> tuple[int, int]:
        """Bytes lately, and how many of them in big skbs, on the devices of this
        node and its pods: the larger of what they sent and what they received.
        """
        sums = {Hook.NET_DEV_START_XMIT: [0, 0], Hook.NETIF_RECEIVE_SKB: [0, 0]}
        for key, lengths in self.snapshot.recent.rows.items():
            device = self.devices.get(key.device)
            if device is None or device.scope is Scope.OTHER or key.family != family:
                continue
            if key.hook in sums:
                sums[key.hook][0] += lengths.histogram.bytes
                sums[key.hook][1] += lengths.histogram.big_bytes
        sent, received = sums.values()
        return max(sent[0], received[0]), max(sent[1], received[1])

    def unmerged(self, family: Family) -> tuple[Link, ...]:
        """Native devices that received much, and GRO merged none of it. What is as
        short as an acknowledgement GRO leaves alone.
        """
        found = []
        for link in self.natives:
            for key, lengths in self.snapshot.recent.rows.items():
                device = self.devices.get(key.device)
                if (
                    device is not None
                    and device.link is link
                    and (key.hook, key.family) == (Hook.NETIF_RECEIVE_SKB, family)
                    and _in_single_packets(lengths, link.mtu)
                ):
                    found.append(link)
        return tuple(found)

    def pod_behind(self, device: DeviceRows) -> str:
        """Whose device it is, as namespace/pod; "" where Cilium does not say."""
        peer = device.device.peer if device.device else None
        if device.scope is not Scope.PODS or peer is None:
            return ""
        endpoint = self._by_index.get(peer.ifindex)
        return endpoint.name if endpoint and endpoint.pod else ""

    @cached_property
    def pods(self) -> tuple[PodLimit, ...]:
        """Pods of this node that have a device of their own, by name."""
        by_index = {link.ifindex: link for link in self.snapshot.links}
        if self.applied is not None:
            found = [
                self._pod(endpoint.name, by_index[endpoint.ifindex])
                for endpoint in self.endpoints
                if endpoint.ifindex in by_index
            ]
        else:
            found = [
                self._pod(endpoint.name if endpoint else link.name, link)
                for link in self.snapshot.links
                if link.kind in _PAIRS
                and link.netnsid is not None
                and not link.in_subnet
                and not link.name.startswith(OWN_DEVICES)
                for endpoint in (self._by_index.get(link.ifindex),)
            ]
        return tuple(sorted(found, key=lambda pod: pod.name))

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The pods that Cilium serves on this node."""
        return pod_endpoints(self.snapshot)

    @cached_property
    def _by_index(self) -> dict[int, Endpoint]:
        return {endpoint.ifindex: endpoint for endpoint in self.endpoints}

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
        """Pods that were made before BIG TCP: nothing but a restart raises them.
        Where nobody asked for it, they are as they should be.
        """
        if not self.asked(family) or not self.effective(family):
            return ()
        return tuple(pod for pod in self.pods if pod.limit(family) <= LEGACY)

    @cached_property
    def unknown_pods(self) -> tuple[str, ...]:
        """Pods that Cilium serves by a device that is not here: of what size?"""
        here = {link.ifindex for link in self.snapshot.links}
        return tuple(
            sorted(
                endpoint.name
                for endpoint in self.endpoints
                if endpoint.ifindex not in here
            )
        )

    def dropped(self, family: Family) -> int:
        """Big packets that the kernel's routing refused lately: IPv6 ones, for their
        length. A few too big are path MTU discovery, and all of them are where eBPF
        routes.
        """
        refused = self.snapshot.recent.ip6_too_big
        if family is not Family.IPV6 or self.datapath.host_routing == "BPF":
            return 0
        big = self.traffic(family)[1] > 0
        return refused if big and refused >= ENOUGH_SKBS else 0


def _in_single_packets(lengths: Lengths, mtu: int) -> bool:
    histogram = lengths.histogram
    full = histogram.above(_ACKNOWLEDGEMENT)
    longer = next((e for e in histogram.edges if e >= mtu), histogram.edges[-1])
    return (
        full * mtu >= ENOUGH_BYTES
        and lengths.segments == histogram.count
        and histogram.above(longer) == 0
    )
