# SPDX-License-Identifier: Apache-2.0
"""What each pod of this node sends and receives.

Sent: net_dev_start_xmit of the pod's own device, before anything on the node
touches the packet. Received: by address, where the packet enters the node
(pod_receive in bpf/skb_length.h); no event of eBPF host routing names the pod.
"""

import threading
from collections.abc import Mapping
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
    return _named(names, *_by_host_side(snapshot))


def _named(
    names: Mapping[int, PodName],
    sent: Mapping[int, Families],
    received: Mapping[int, Families],
) -> tuple[PodTraffic, ...]:
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


def _by_host_side(
    snapshot: Snapshot,
) -> tuple[dict[int, Families], dict[int, Families]]:
    """All that was sent, and received, by the ifindex of the host side."""
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
    return sent, received


def add_to(sums: Families, more: Families) -> None:
    """Add to running sums, in place."""
    for family, lengths in more.items():
        sums[family] = sums[family].add(lengths) if family in sums else lengths


class Pods:
    """Shows at most so many pods by name; safe to call from any thread.

    Who has a name keeps it, so no series comes and goes with the traffic. What a
    pod counts is added when it is seen, to its own series or to the sum of the
    others. So neither ever falls or jumps, whoever goes, comes back, or gets or
    loses a name: one that gets it later begins at zero.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._shown: dict[int, None] = {}  # a set that keeps its order
        self._seen: dict[int, PodTraffic] = {}  # what is added already
        self._own: dict[int, PodTraffic] = {}  # of that, what bears the pod's name
        self._others = PodTraffic("", "", OTHER_PODS, {}, {})
        self._latest = 0.0

    def traffic(self, snapshot: Snapshot, names: Mapping[int, PodName]) -> PodsTraffic:
        """Named and summed pods of a snapshot; see traffic_of()."""
        with self._lock:
            sent, received = _by_host_side(snapshot)
            pods = {pod.ifindex: pod for pod in _named(names, sent, received)}
            shown = [ifindex for ifindex in self._shown if ifindex in pods]
            shown = list(dict.fromkeys([*shown, *pods]))[: self._most]
            self._shown = dict.fromkeys(shown)
            self._forget(pods.keys() | sent.keys() | received.keys())
            # Two scrapes at once may come in the wrong order: an older snapshot's
            # counts would look like those of a row that began anew.
            at = snapshot.started + snapshot.uptime
            for pod in pods.values():
                self._add(pod, new=at >= self._latest)
            self._latest = max(at, self._latest)
            # Beyond the cap of the kernel's map: one row for them all.
            others = dict(self._others.received)
            add_to(others, received.get(OTHER_PODS, {}))
            return PodsTraffic(
                tuple(
                    replace(
                        pod,
                        sent=dict(self._own[ifindex].sent),
                        received=dict(self._own[ifindex].received),
                    )
                    for ifindex, pod in pods.items()
                    if ifindex in self._shown
                ),
                replace(self._others, sent=dict(self._others.sent), received=others),
                len(pods) - len(self._shown),
            )

    def _forget(self, here: set[int]) -> None:
        """Drop who is gone: has no name and no row. Who has only lost its name, as
        in a list that Cilium makes while it restores, comes back with old counts.
        """
        self._seen = {i: pod for i, pod in self._seen.items() if i in here}
        self._own = {i: pod for i, pod in self._own.items() if i in here}

    def _add(self, pod: PodTraffic, *, new: bool) -> None:
        to = self._others
        if pod.ifindex in self._shown:
            to = self._own.setdefault(pod.ifindex, replace(pod, sent={}, received={}))
        if not new:
            return
        before = self._seen.get(pod.ifindex, replace(pod, sent={}, received={}))
        _add_new(to.sent, pod.sent, before.sent)
        _add_new(to.received, pod.received, before.received)
        self._seen[pod.ifindex] = replace(
            pod,
            sent=before.sent | pod.sent,
            received=before.received | pod.received,
        )


def _add_new(sums: Families, now: Families, before: Families) -> None:
    """Add what came since; where nothing did, a sum begins at zero."""
    for family, lengths in now.items():
        if family not in sums or lengths != before.get(family):
            new = lengths.since(before[family]) if family in before else lengths
            add_to(sums, {family: new})
