# SPDX-License-Identifier: Apache-2.0
"""A Snapshot with its verdict as JSON: what /api/snapshot serves and `check` reads.

The schema is versioned: within a version members are only added.
"""

from dataclasses import asdict
from typing import Any

from agent import __version__
from agent.snapshot.evidence import FAMILIES, LEGACY, Evidence, PodLimit
from agent.snapshot.model import Lengths, Link, Scope
from agent.snapshot.sample import POD_RECEIVE, SCHEMA
from agent.snapshot.snapshot import DeviceRows, Snapshot
from agent.snapshot.verdict import judge


def picture(snapshot: Snapshot) -> dict[str, Any]:
    """Plain values, ready for json.dumps. Sizes in bytes, times in seconds."""
    evidence, verdict = Evidence(snapshot), judge(snapshot)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "taken": snapshot.taken,
        "started": snapshot.started,
        "uptime": snapshot.uptime,
        "node": snapshot.node,
        "kernel": snapshot.kernel,
        "families": {
            family: {
                "configured": evidence.configured(family),
                "enabled": evidence.running(family),
                "state": verdict.families[family].state,
                "reason": verdict.families[family].reason,
                "bytes": evidence.traffic(family)[0],
                "big_bytes": evidence.traffic(family)[1],
            }
            for family in FAMILIES
        },
        "findings": [asdict(finding) for finding in verdict.findings],
        "wanted": asdict(evidence.wanted) if evidence.wanted else None,
        "cilium": _cilium(snapshot),
        "cilium_agent": {
            "expected": evidence.has_cilium,
            "answers": evidence.answers,
            "mute": evidence.mute,
            "pod": asdict(evidence.cilium_pod) if evidence.cilium_pod else None,
        },
        "devices": [_device(link) for link in snapshot.links if not link.loopback],
        "pods": [_pod(pod) for pod in evidence.pods],
        "unknown_pods": evidence.unknown_pods,
        "recent": _recent(snapshot),
        "sources": {
            name: {
                "up": source.up,
                "errors": source.errors,
                "answered": source.answered,
                "problem": snapshot.problems.get(name, ""),
            }
            for name, source in snapshot.sources.items()
        },
        "attached": {str(hook): on for hook, on in snapshot.attached.items()},
        "unrecorded": snapshot.unrecorded,
        "maps": {name: asdict(entries) for name, entries in snapshot.maps.items()},
        "edges": snapshot.edges,
        "counters": _counters(snapshot),
    }


def _cilium(snapshot: Snapshot) -> dict[str, Any] | None:
    """What Cilium's agent says of itself, without its endpoints."""
    applied = snapshot.applied
    if applied is None:
        return None
    told = asdict(applied)
    del told["endpoints"]
    return told


def _device(link: Link) -> dict[str, Any]:
    return {
        "name": link.name,
        "ifindex": link.ifindex,
        "kind": link.kind,
        "sizes": asdict(link.sizes),
    }


def _pod(pod: PodLimit) -> dict[str, Any]:
    return {
        "name": pod.name,
        "interface": pod.interface,
        "ifindex": pod.ifindex,
        "started": pod.started,
        "limits": {family: pod.limit(family) for family in FAMILIES},
        "own": pod.own,
    }


def _counters(snapshot: Snapshot) -> list[dict[str, Any]]:
    """What was counted since the start, a row per device, hook and family. A device
    that has been gone for a while is not there any more.

    `netns` is the inode of the namespace, None before the kernel has told it;
    `cookie` and `ifindex` name the device for as long as the kernel runs, `peer`
    is the ifindex of its other end. What a pod received, where single pods are
    told apart, has the hook pod_receive and the host side of the pod's device.
    """
    names = {link.ifindex: link.name for link in snapshot.links}
    rows = [
        {
            "device": device.name,
            "kind": device.device.kind if device.device else "",
            "netns": device.device.netns_inode if device.device else None,
            "cookie": device.id.netns,
            "ifindex": device.id.ifindex,
            "peer": _ifindex_of_peer(device),
            "scope": device.scope,
            "hook": hook,
            "ip_family": family,
            **_lengths(row.lengths),
            "limit": row.limit,
        }
        for device in snapshot.devices
        for (hook, family), row in sorted(device.rows.items())
    ]
    received = [
        {
            "device": names.get(ifindex, ""),
            "kind": "",
            "netns": None,
            "cookie": 0,
            "ifindex": ifindex,
            "peer": None,
            "scope": Scope.PODS,
            "hook": POD_RECEIVE,
            "ip_family": family,
            **_lengths(lengths),
            "limit": 0,
        }
        for (ifindex, family), lengths in sorted(snapshot.pods_received.items())
    ]
    return rows + received


def _lengths(lengths: Lengths) -> dict[str, Any]:
    return {
        "slots": lengths.histogram.slots,
        "bytes": lengths.histogram.bytes,
        "big_bytes": lengths.histogram.big_bytes,
        "segments": lengths.segments,
        "longest": lengths.longest,
    }


def _ifindex_of_peer(device: DeviceRows) -> int | None:
    peer = device.device.peer if device.device else None
    return peer.ifindex if peer else None


def _recent(snapshot: Snapshot) -> dict[str, Any]:
    """What happened lately, by device, hook and family."""
    devices = {device.id: device for device in snapshot.devices}
    rows = [
        {
            "device": device.name,
            "netns": device.device.netns_inode if device.device else None,
            "scope": device.scope,
            "hook": key.hook,
            "ip_family": key.family,
            "skbs": lengths.histogram.count,
            "bytes": lengths.histogram.bytes,
            "big_bytes": lengths.histogram.big_bytes,
            "big_skbs": lengths.histogram.above(LEGACY),
            "segments": lengths.segments,
            "limit": device.rows[key.hook, key.family].limit,
        }
        for key, lengths in sorted(snapshot.recent.rows.items())
        if (device := devices.get(key.device)) is not None
    ]
    return {
        "seconds": snapshot.recent.seconds,
        "ip6_too_big": snapshot.recent.ip6_too_big,
        "rows": rows,
    }
