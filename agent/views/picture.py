# SPDX-License-Identifier: Apache-2.0
"""A Snapshot with its verdict as JSON: what /api/snapshot serves and `check` reads."""

from dataclasses import asdict
from typing import Any

import msgspec

from agent import __version__
from agent.snapshot.evidence import FAMILIES, LEGACY, Evidence, PodLimit
from agent.snapshot.model import Family, Scope
from agent.snapshot.sample import POD_RECEIVE
from agent.snapshot.schema import (
    SCHEMA,
    CiliumAgentJson,
    CounterRow,
    DeviceJson,
    FamiliesJson,
    FamilyJson,
    FindingJson,
    PodJson,
    RecentJson,
    RecentRow,
    SnapshotJson,
    SourceJson,
)
from agent.snapshot.snapshot import DeviceRows, Snapshot
from agent.snapshot.verdict import Verdict, judge


def picture(snapshot: Snapshot) -> dict[str, Any]:
    """A SnapshotJson as plain values, ready for json.dumps."""
    evidence = Evidence(snapshot)
    verdict = judge(evidence)
    told = SnapshotJson(
        schema=SCHEMA,
        version=__version__,
        taken=snapshot.taken,
        started=snapshot.started,
        uptime=snapshot.uptime,
        node=snapshot.node,
        kernel=snapshot.kernel,
        families=FamiliesJson(*(_family(evidence, verdict, at) for at in FAMILIES)),
        findings=tuple(FindingJson(**asdict(each)) for each in verdict.findings),
        wanted=evidence.wanted,
        cilium=snapshot.applied,
        cilium_agent=CiliumAgentJson(
            expected=evidence.has_cilium,
            answers=evidence.answers,
            mute=evidence.mute,
            pod=evidence.cilium_pod,
        ),
        devices=tuple(
            DeviceJson(link.name, link.ifindex, link.kind, link.sizes)
            for link in snapshot.links
            if not link.loopback
        ),
        pods=tuple(map(_pod, evidence.pods)),
        unknown_pods=evidence.unknown_pods,
        recent=_recent(snapshot),
        sources={
            name: SourceJson(**asdict(source), problem=snapshot.problems.get(name, ""))
            for name, source in snapshot.sources.items()
        },
        attached={str(hook): on for hook, on in snapshot.attached.items()},
        unrecorded=snapshot.unrecorded,
        maps=snapshot.maps,
        edges=snapshot.edges,
        counters=_counters(snapshot),
    )
    plain: dict[str, Any] = msgspec.to_builtins(told)
    if plain["cilium"]:
        del plain["cilium"]["endpoints"]  # they are in no CiliumAgent
    return plain


def _family(evidence: Evidence, verdict: Verdict, family: Family) -> FamilyJson:
    judgement = verdict.families[family]
    return FamilyJson(
        evidence.configured(family),
        evidence.running(family),
        judgement.state,
        judgement.reason,
        *evidence.traffic(family),
    )


def _pod(pod: PodLimit) -> PodJson:
    limits = {family: pod.limit(family) for family in FAMILIES}
    return PodJson(pod.name, pod.interface, pod.ifindex, pod.started, limits, pod.own)


def _counters(snapshot: Snapshot) -> tuple[CounterRow, ...]:
    names = {link.ifindex: link.name for link in snapshot.links}
    rows = [
        CounterRow(
            device=device.name,
            kind=device.device.kind if device.device else "",
            netns=device.device.netns_inode if device.device else None,
            cookie=device.id.netns,
            ifindex=device.id.ifindex,
            peer=_ifindex_of_peer(device),
            scope=device.scope,
            hook=hook,
            ip_family=family,
            **row.lengths.members(),
            limit=row.limit,
        )
        for device in snapshot.devices
        for (hook, family), row in sorted(device.rows.items())
    ]
    received = [
        CounterRow(
            device=names.get(ifindex, ""),
            kind="",
            netns=None,
            cookie=0,
            ifindex=ifindex,
            peer=None,
            scope=Scope.PODS,
            hook=POD_RECEIVE,
            ip_family=family,
            **lengths.members(),
            limit=0,
        )
        for (ifindex, family), lengths in sorted(snapshot.pods_received.items())
    ]
    return (*rows, *received)


def _ifindex_of_peer(device: DeviceRows) -> int | None:
    peer = device.device.peer if device.device else None
    return peer.ifindex if peer else None


def _recent(snapshot: Snapshot) -> RecentJson:
    devices = {device.id: device for device in snapshot.devices}
    rows = tuple(
        RecentRow(
            device=device.name,
            netns=device.device.netns_inode if device.device else None,
            scope=device.scope,
            hook=key.hook,
            ip_family=key.family,
            skbs=lengths.histogram.count,
            bytes=lengths.histogram.bytes,
            big_bytes=lengths.histogram.big_bytes,
            big_skbs=lengths.histogram.above(LEGACY),
            segments=lengths.segments,
            limit=device.rows[key.hook, key.family].limit,
        )
        for key, lengths in sorted(snapshot.recent.rows.items())
        if (device := devices.get(key.device)) is not None
    )
    return RecentJson(snapshot.recent.seconds, snapshot.recent.ip6_too_big, rows)
