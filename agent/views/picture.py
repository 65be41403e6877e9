# SPDX-License-Identifier: Apache-2.0
"""A Snapshot with its verdict as JSON: what /api/snapshot serves and `check` reads.

The schema is versioned: within a version members are only added.
"""

from dataclasses import asdict
from typing import Any

from agent import __version__
from agent.snapshot.evidence import FAMILIES, LEGACY, Evidence, PodLimit
from agent.snapshot.model import Link
from agent.snapshot.snapshot import Snapshot
from agent.snapshot.verdict import judge

SCHEMA = "bigtcp.snapshot/v1"


def picture(snapshot: Snapshot) -> dict[str, Any]:
    """Plain values, ready for json.dumps. Sizes in bytes, times in seconds."""
    evidence, verdict = Evidence(snapshot), judge(snapshot)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "taken": snapshot.taken,
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
        "devices": [_device(link) for link in snapshot.links if not link.loopback],
        "pods": [_pod(pod) for pod in evidence.pods],
        "recent": _recent(snapshot),
        "sources": {
            name: {
                "up": source.up,
                "errors": source.errors,
                "problem": snapshot.problems.get(name, ""),
            }
            for name, source in snapshot.sources.items()
        },
        "attached": {str(hook): on for hook, on in snapshot.attached.items()},
        "unrecorded": snapshot.unrecorded,
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
        "limits": {family: pod.limit(family) for family in FAMILIES},
        "own": pod.own,
    }


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
