# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with BIG TCP, as users have reported it: one function each. Pure.

A function looks at the evidence and tells what it found: never without having
seen it. Ids are for alerts and documents and keep their meaning.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from agent.snapshot.evidence import (
    ENOUGH_BYTES,
    FAMILIES,
    LEGACY,
    TARGET,
    Evidence,
    gro_size,
    gso_size,
)
from agent.snapshot.model import Family

_FIRST_KERNEL = {Family.IPV4: "6.3", Family.IPV6: "5.19"}


class Severity(StrEnum):
    """`critical`: slower than BIG TCP off, or broken. `warning`: not what was
    wanted. `info`: good to know.
    """

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: what was seen, why it matters, what to do.

    `subjects` are the devices or pods concerned, `families` the IP families.
    """

    id: str
    severity: Severity
    families: tuple[Family, ...]
    seen: str
    why: str
    remedy: str
    subjects: tuple[str, ...] = ()


Find = Callable[[Evidence], Iterator[Finding]]


def _wanted(evidence: Evidence) -> tuple[Family, ...]:
    return tuple(family for family in FAMILIES if evidence.asked(family))


def kernel_too_old(evidence: Evidence) -> Iterator[Finding]:
    """C01."""
    for family in _wanted(evidence):
        if not evidence.supported(family):
            yield Finding(
                "C01",
                Severity.WARNING,
                (family,),
                f"Linux {evidence.snapshot.kernel} has no {family} BIG TCP",
                "Cilium only warns about it in its log and goes on without",
                f"use Linux {_FIRST_KERNEL[family]} or newer",
            )


def not_effective(evidence: Evidence) -> Iterator[Finding]:
    """C02: the flag is on, the size is not."""
    for family in _wanted(evidence):
        applied = evidence.applied
        if applied is None or not applied.big_tcp[family].enabled:
            continue
        if evidence.supported(family) and not evidence.effective(family):
            size = applied.big_tcp[family].max_gso or LEGACY
            yield Finding(
                "C02",
                Severity.WARNING,
                (family,),
                f"Cilium reports {family} BIG TCP enabled with {size} bytes",
                "`enabled` is only the flag: no packet can be above 64 KiB",
                "see the limiting device (C03, C04), and the Cilium agent's log",
            )


def device_limits(evidence: Evidence) -> Iterator[Finding]:
    """C03, C04: Cilium takes the least that all its devices can."""
    families = _wanted(evidence)
    able = [link for link in evidence.natives if link.sizes.tso_max is not None]
    if not families or not able:
        return
    least = min(link.sizes.tso_max or 0 for link in able)
    if least >= TARGET:
        return
    limiting = tuple(link.name for link in able if link.sizes.tso_max == least)
    others = any((link.sizes.tso_max or 0) >= TARGET for link in able)
    yield Finding(
        "C04" if others else "C03",
        Severity.WARNING if least <= LEGACY else Severity.INFO,
        families,
        f"{', '.join(limiting)} can send no more than {least} bytes (tso_max_size)",
        "Cilium takes the least of all its devices, for every pod of the node",
        (
            "leave that device out of Cilium's `devices`"
            if others
            else "it is the driver's limit: another NIC or driver, or live with it"
        ),
        limiting,
    )


def prerequisites(evidence: Evidence) -> Iterator[Finding]:
    """C05: what Cilium's BIG TCP needs, and does not always check."""
    families, applied = _wanted(evidence), evidence.applied
    if not families or applied is None:
        return
    missing = []
    if applied.host_routing == "Legacy":
        missing.append(("host routing is Legacy", "set bpf.hostLegacyRouting=false"))
    if applied.masquerading == "iptables":
        missing.append(("masquerading is by iptables", "set bpf.masquerade=true"))
    if applied.kube_proxy_replacement and not applied.replaces_kube_proxy:
        missing.append(
            (
                f"kube-proxy replacement is {applied.kube_proxy_replacement}",
                "set kubeProxyReplacement=true",
            )
        )
    if applied.routing_mode == "tunnel" and applied.version < "1.19":
        missing.append(("routing is by tunnel", "set routingMode=native"))
    if missing:
        yield Finding(
            "C05",
            Severity.CRITICAL,
            families,
            "; ".join(seen for seen, _ in missing),
            "BIG TCP needs eBPF host routing; through the kernel's own, IPv6 "
            "packets above 64 KiB are refused",
            "; ".join(remedy for _, remedy in missing),
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
        since = f", the oldest since {_utc(min(started))}" if started else ""
        names = tuple(sorted(families))
        yield Finding(
            "C06",
            Severity.WARNING,
            tuple(f for f in FAMILIES if any(f in fs for fs in families.values())),
            f"{len(names)} of {len(evidence.pods)} pods are still at 64 KiB{since}",
            "Cilium sets a pod's size when it makes the pod, and never again",
            "restart these pods",
            names,
        )


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def drift(evidence: Evidence) -> Iterator[Finding]:
    """C07: set by Cilium, undone by somebody else."""
    for family in FAMILIES:
        links = evidence.drifted(family)
        if links:
            sizes = ", ".join(
                f"{link.name}: gso {gso_size(link, family)}, gro "
                f"{gro_size(link, family)}"
                for link in links
            )
            yield Finding(
                "C07",
                Severity.WARNING,
                (family,),
                f"Cilium has raised its devices, but {sizes}",
                "a driver's reset or `ip link set gso_max_size` undid it; Cilium "
                "looks only when it starts",
                "restart the Cilium agent of this node",
                tuple(link.name for link in links),
            )


def software_segmentation(evidence: Evidence) -> Iterator[Finding]:
    """C08, C09: big at net_dev_queue, in pieces at net_dev_start_xmit."""
    found: dict[tuple[str, str], dict[Family, str]] = {}
    for family in FAMILIES:
        for cut in evidence.cuts(family):
            number = "C08" if cut.limit > LEGACY and family is Family.IPV4 else "C09"
            found.setdefault((number, cut.name), {})[family] = (
                f"{family}: {cut.queued} queued above 64 KiB, {cut.sent} left whole, "
                f"limit {cut.limit} bytes"
            )
    for (number, name), seen in found.items():
        if number == "C08":
            why = "kernels from 6.7 on compare IPv4 with the limit of IPv6"
            remedy = "enable IPv6 BIG TCP as well, or upgrade the kernel"
        else:
            why = "it is slower than BIG TCP off"
            remedy = f"raise gso_max_size and gso_ipv4_max_size of {name} to {TARGET}"
        yield Finding(
            number,
            Severity.CRITICAL,
            tuple(seen),
            f"{name} cuts packets in software; {'; '.join(seen.values())}",
            why,
            remedy,
            (name,),
        )


def tunnel_limits(evidence: Evidence) -> Iterator[Finding]:
    """C10: Cilium 1.19 fails to set up a tunnel device that cannot be big."""
    families, applied = _wanted(evidence), evidence.applied
    stuck = [
        link.name for link in evidence.tunnels if (link.sizes.tso_max or 0) <= LEGACY
    ]
    if families and stuck and applied and applied.version.startswith("1.19."):
        yield Finding(
            "C10",
            Severity.WARNING,
            families,
            f"{', '.join(stuck)} cannot be above 64 KiB, Cilium is {applied.version}",
            "some releases of 1.19 then fail with 'setting up GSO/GRO on VXLAN "
            "netdev: invalid argument'",
            "upgrade Cilium (issues 44198, 46337), or do without the tunnel",
            tuple(stuck),
        )


def not_restarted(evidence: Evidence) -> Iterator[Finding]:
    """C12: the ConfigMap says one thing, the running agent another."""
    for family in FAMILIES:
        configured, running = evidence.configured(family), evidence.running(family)
        if None not in (configured, running) and configured != running:
            yield Finding(
                "C12",
                Severity.WARNING,
                (family,),
                f"the configuration says {configured}, the Cilium agent runs with "
                f"{running}",
                "Cilium reads its configuration when it starts",
                "kubectl -n kube-system rollout restart ds/cilium",
            )


def too_big_to_forward(evidence: Evidence) -> Iterator[Finding]:
    """C13: IPv6 through the kernel's routing, before Linux 7.0."""
    dropped = evidence.dropped(Family.IPV6)
    if dropped:
        yield Finding(
            "C13",
            Severity.CRITICAL,
            (Family.IPV6,),
            f"this node refused to forward {dropped} IPv6 packets as too big",
            "routing counts the 8-byte header of IPv6 BIG TCP for each segment; "
            "connections crawl",
            "use eBPF host routing, or an MTU that is 8 bytes lower in the pods",
        )


def nothing_big(evidence: Evidence) -> Iterator[Finding]:
    """C14: all is set, there is traffic, and yet."""
    for family in _wanted(evidence):
        total, big = evidence.traffic(family)
        if (
            not big
            and total >= ENOUGH_BYTES
            and evidence.effective(family)
            and not evidence.legacy_pods(family)
            and not evidence.drifted(family)
        ):
            yield Finding(
                "C14",
                Severity.INFO,
                (family,),
                f"{total} bytes in {evidence.snapshot.recent.seconds:.0f} s, none in "
                "packets above 64 KiB",
                "small writes, sendfile (69,632 bytes), UDP or a slow path keep "
                "packets small; nothing has to be wrong",
                "try the lab's netperf: TCP_RR -r 80000:80000",
            )


def not_merged(evidence: Evidence) -> Iterator[Finding]:
    """C15: GRO does nothing. What was cut on its way is told there."""
    for family in _wanted(evidence):
        links = evidence.unmerged(family)
        if links and not evidence.cuts(family):
            names = tuple(link.name for link in links)
            yield Finding(
                "C15",
                Severity.WARNING,
                (family,),
                f"what {', '.join(names)} received lately came in single packets",
                "without GRO nothing that is received is big",
                f"ethtool -K {names[0]} gro on",
                names,
            )


def encrypted(evidence: Evidence) -> Iterator[Finding]:
    """C18."""
    families, applied = _wanted(evidence), evidence.applied
    if families and applied and applied.encryption == "IPsec":
        yield Finding(
            "C18",
            Severity.CRITICAL,
            families,
            "Cilium encrypts with IPsec",
            "BIG TCP does not work with it",
            "do without one of them",
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
            f"{len(old)} pods have a veth pair, Cilium is in {applied.datapath_mode}",
            "they were made before Cilium's datapath mode was changed",
            "restart these pods",
            old,
        )


FINDINGS: tuple[Find, ...] = (
    kernel_too_old,
    not_effective,
    device_limits,
    prerequisites,
    pods_to_restart,
    drift,
    software_segmentation,
    tunnel_limits,
    not_restarted,
    too_big_to_forward,
    nothing_big,
    not_merged,
    encrypted,
    mixed_datapath,
)

# Every id that a function here can tell.
FINDING_IDS = tuple(
    f"C{number:02}" for number in (*range(1, 11), 12, 13, 14, 15, 18, 19)
)
