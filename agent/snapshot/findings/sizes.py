# SPDX-License-Identifier: Apache-2.0
"""Wrong with the size limits of devices and pods."""

from collections.abc import Iterator

from agent.snapshot.evidence import (
    FAMILIES,
    LEGACY,
    TARGET,
    Evidence,
    gro_size,
    gso_size,
)
from agent.snapshot.findings.finding import Finding, Severity, utc
from agent.snapshot.model import Family


def device_limits(evidence: Evidence) -> Iterator[Finding]:
    """C03, C04: Cilium takes the least that all its devices can."""
    families = evidence.asked_for
    able = [link for link in evidence.natives if link.sizes.tso_max is not None]
    if not families or not able:
        return
    least = min(link.sizes.tso_max or 0 for link in able)
    if least >= TARGET:
        return
    limiting = tuple(link.name for link in able if link.sizes.tso_max == least)
    others = len(limiting) < len(able)  # can more
    yield Finding(
        "C04" if others else "C03",
        Severity.WARNING if least <= LEGACY else Severity.INFO,
        families,
        f"{', '.join(limiting)} can send no more than {least:,} bytes (tso_max_size)",
        "Cilium takes the least of all its devices, for every pod of the node",
        (
            "leave that device out of Cilium's `devices`"
            if others
            else "it is the driver's limit: another NIC or driver, or live with it"
        ),
        limiting,
    )


def pods_to_restart(evidence: Evidence) -> Iterator[Finding]:
    """C06."""
    families: dict[str, list[Family]] = {}
    started = []
    for family in FAMILIES:
        for pod in evidence.legacy_pods(family):
            families.setdefault(pod.name, []).append(family)
            if pod.started is not None:
                started.append(pod.started)
    if families:
        since = f", the oldest since {utc(min(started))}" if started else ""
        names = tuple(sorted(families))
        yield Finding(
            "C06",
            Severity.WARNING,
            tuple(f for f in FAMILIES if any(f in fs for fs in families.values())),
            f"{len(names):,} of {len(evidence.pods):,} pods are still at 64 KiB{since}",
            "Cilium sets a pod's size when it makes the pod, and never again",
            "restart these pods",
            names,
        )


def drift(evidence: Evidence) -> Iterator[Finding]:
    """C07: set by Cilium, undone by somebody else."""
    for family in FAMILIES:
        links, applied = evidence.drifted(family), evidence.applied
        if links and applied is not None:
            told = applied.big_tcp[family]
            sizes = ", ".join(
                f"{link.name} has gso {gso_size(link, family):,} and gro "
                f"{gro_size(link, family):,} bytes"
                for link in links
            )
            yield Finding(
                "C07",
                Severity.WARNING,
                (family,),
                f"Cilium has set gso {told.max_gso:,} and gro {told.max_gro:,} bytes, "
                f"but {sizes}",
                "a driver's reset or `ip link set gso_max_size` undid it; Cilium "
                "looks only when it starts",
                "restart the Cilium agent of this node",
                tuple(link.name for link in links),
            )


def mixed_datapath(evidence: Evidence) -> Iterator[Finding]:
    """C19: pods from before the change to netkit."""
    applied = evidence.applied
    if applied is None or not applied.datapath_mode.startswith("netkit"):
        return
    ours = {pod.interface: pod.name for pod in evidence.pods}
    old = tuple(
        ours[link.name]
        for link in evidence.snapshot.links
        if link.name in ours and link.kind == "veth"
    )
    if old:
        yield Finding(
            "C19",
            Severity.INFO,
            FAMILIES,
            f"{len(old):,} pods have a veth pair, Cilium is in {applied.datapath_mode}",
            "they were made before Cilium's datapath mode was changed",
            "restart these pods",
            old,
        )
