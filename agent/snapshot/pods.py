# SPDX-License-Identifier: Apache-2.0
"""What each pod of this node sends and receives.

Sent: net_dev_start_xmit of the pod's own device, before anything on the node
touches the packet. Received: by address, where the packet enters the node
(pod_receive in bpf/skb_length.h); no event of eBPF host routing names the pod.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.snapshot.model import OTHER_PODS, Family, Hook, Lengths, Scope
from agent.snapshot.snapshot import Snapshot

Families = dict[Family, Lengths]


class PodName(NamedTuple):
    """How Kubernetes calls a pod."""

    namespace: str
    pod: str


@dataclass(frozen=True, slots=True)
class PodTraffic:
    """One pod; `ifindex` is that of the host side of its device."""

    namespace: str
    pod: str
    ifindex: int
    sent: Families
    received: Families


@dataclass(frozen=True, slots=True)
class PodsTraffic:
    """The pods that have a name here, and all others: their sum, and how many."""

    named: tuple[PodTraffic, ...]
    others: PodTraffic
    summed: int


NO_PODS = PodsTraffic((), PodTraffic("", "", OTHER_PODS, {}, {}), 0)


def traffic_of(
    snapshot: Snapshot, names: Mapping[int, PodName]
) -> tuple[PodTraffic, ...]:
    """Every pod that has a name, in the order of the names.

    `names`: the ifindex of the host side to the pod. A pod without traffic is
    there too.
    """
    sent: dict[int, Families] = {}
    for device in snapshot.devices:
        if device.scope is Scope.PODS and device.device and device.device.peer:
            its = sent.setdefault(device.device.peer.ifindex, {})
            for (hook, family), row in device.rows.items():
                if hook is Hook.NET_DEV_START_XMIT and family is not Family.OTHER:
                    add_to(its, {family: row.lengths})
    received: dict[int, Families] = {}
    for (ifindex, family), lengths in snapshot.pods_received.items():
        received.setdefault(ifindex, {})[family] = lengths
    pods = sorted((name, ifindex) for ifindex, name in names.items())
    return tuple(
        PodTraffic(
            name.namespace,
            name.pod,
            ifindex,
            sent.get(ifindex, {}),
            received.get(ifindex, {}),
        )
        for name, ifindex in pods
    )


def add_to(sums: Families, more: Families) -> None:
    """Add to running sums, in place."""
    for family, lengths in more.items():
        sums[family] = sums[family].add(lengths) if family in sums else lengths


def _since(now: Families, before: Families) -> Families:
    return {
        family: lengths.since(before[family]) if family in before else lengths
        for family, lengths in now.items()
    }


class Pods:
    """Shows at most so many pods by name; safe to call from any thread.

    Who has a name keeps it, so no series comes and goes with the traffic. The
    sum of the others never falls, whoever goes or gets a name: it keeps what it
    has counted of a pod, and a pod that gets a name later begins at zero.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._shown: dict[int, None] = {}  # a set that keeps its order
        self._summed: dict[int, PodTraffic] = {}  # as they were last seen
        self._kept = PodTraffic("", "", OTHER_PODS, {}, {})  # of who left the sum
        self._begun: dict[int, PodTraffic] = {}  # what the sum has of the shown

    def traffic(self, snapshot: Snapshot, names: Mapping[int, PodName]) -> PodsTraffic:
        """Named and summed pods of a snapshot; see traffic_of()."""
        with self._lock:
            pods = {pod.ifindex: pod for pod in traffic_of(snapshot, names)}
            shown = [ifindex for ifindex in self._shown if ifindex in pods]
            shown = list(dict.fromkeys([*shown, *pods]))[: self._most]
            self._shown = dict.fromkeys(shown)
            self._leave(pods)
            self._summed |= {
                ifindex: pod
                for ifindex, pod in pods.items()
                if ifindex not in self._shown
            }
            # Beyond the cap of the kernel's map: one row for them all.
            beyond = {
                family: lengths
                for (ifindex, family), lengths in snapshot.pods_received.items()
                if ifindex == OTHER_PODS
            }
            return PodsTraffic(
                tuple(
                    self._after(pod)
                    for ifindex, pod in pods.items()
                    if ifindex in self._shown
                ),
                _sum([self._kept, *self._summed.values()], beyond),
                len(self._summed),
            )

    def _leave(self, pods: Mapping[int, PodTraffic]) -> None:
        """Those who are gone, or get a name, leave the sum their counts."""
        for ifindex in list(self._summed):
            if ifindex in self._shown or ifindex not in pods:
                last = self._summed.pop(ifindex)
                self._kept = _sum([self._kept, last], {})
                if ifindex in self._shown:
                    self._begun[ifindex] = last
        self._begun = {i: pod for i, pod in self._begun.items() if i in self._shown}

    def _after(self, pod: PodTraffic) -> PodTraffic:
        before = self._begun.get(pod.ifindex)
        if before is None:
            return pod
        return replace(
            pod,
            sent=_since(pod.sent, before.sent),
            received=_since(pod.received, before.received),
        )


def _sum(pods: Iterable[PodTraffic], received: Families) -> PodTraffic:
    total = PodTraffic("", "", OTHER_PODS, {}, dict(received))
    for pod in pods:
        add_to(total.sent, pod.sent)
        add_to(total.received, pod.received)
    return total
