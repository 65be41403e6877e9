# SPDX-License-Identifier: Apache-2.0
"""Wrong with what passed lately."""

import shlex
from collections.abc import Iterator

from agent.snapshot.cuts import Cause, Cut, cuts
from agent.snapshot.evidence import ENOUGH_BYTES, FAMILIES, TARGET, Evidence
from agent.snapshot.findings.finding import Finding, Severity
from agent.snapshot.model import Family


def software_segmentation(evidence: Evidence) -> Iterator[Finding]:
    """C08, C09: big at net_dev_queue, in pieces at net_dev_start_xmit."""
    found: dict[tuple[Cause, str], list[Cut]] = {}
    for family in FAMILIES:
        for cut in cuts(evidence, family):
            found.setdefault((cut.cause, cut.name), []).append(cut)
    for (cause, name), its in found.items():
        seen = "; ".join(
            f"{cut.family}: {cut.queued:,} packets queued above 64 KiB, "
            f"{cut.sent:,} left whole, limit {cut.limit:,} bytes"
            for cut in its
        )
        why = "it is slower than BIG TCP off"
        if cause is Cause.KERNEL:
            why += ": kernels from 6.7 on compare IPv4 with the limit of IPv6"
            remedy = "enable IPv6 BIG TCP as well, or upgrade the kernel"
        elif cause is Cause.LIMIT:
            remedy = f"raise gso_max_size and gso_ipv4_max_size of {name} to {TARGET}"
        else:
            why += ": the limit is high enough, but the device cannot segment"
            remedy = "tcp-segmentation-offload must be on"
            if any(cut.ipv6_limit is None for cut in its):
                remedy += ", and gso_max_size as high as gso_ipv4_max_size"
            device = its[0].device
            if device.link or device.device:  # else its name is not known
                where = "" if device.name == name else f" in the namespace of {name}"
                remedy += f"; see{where}: ethtool -k {shlex.quote(device.name)}"
        yield Finding(
            "C08" if cause is Cause.KERNEL else "C09",
            Severity.CRITICAL,
            tuple(cut.family for cut in its),
            f"{name} cuts packets in software; {seen}",
            why,
            remedy,
            (name,),
        )


def too_big_to_forward(evidence: Evidence) -> Iterator[Finding]:
    """C13: IPv6 through the kernel's routing, before Linux 7.0."""
    dropped = evidence.dropped(Family.IPV6)
    if dropped:
        yield Finding(
            "C13",
            Severity.CRITICAL,
            (Family.IPV6,),
            f"this node refused to forward {dropped:,} IPv6 packets as too big",
            "routing counts the 8-byte header of IPv6 BIG TCP for each segment; "
            "connections crawl",
            "use eBPF host routing, or an MTU that is 8 bytes lower in the pods",
        )


def nothing_big(evidence: Evidence) -> Iterator[Finding]:
    """C14: all is set, there is traffic, and yet."""
    for family in evidence.asked_for:
        total, big = evidence.traffic(family)
        if (
            not big
            and total >= ENOUGH_BYTES
            and evidence.effective(family)
            and not evidence.legacy_pods(family)
            and not evidence.reset(family)
        ):
            yield Finding(
                "C14",
                Severity.INFO,
                (family,),
                f"{total:,} bytes in {evidence.snapshot.recent.seconds:.0f} s, none in "
                "packets above 64 KiB",
                "small writes, UDP or a slow path keep packets small, sendfile (17 "
                "fragments) hardly passes 64 KiB; nothing has to be wrong",
                "try the lab's netperf: TCP_RR -r 80000:80000",
            )


def not_merged(evidence: Evidence) -> Iterator[Finding]:
    """C15: GRO does nothing. What was cut on its way is told there. Histograms do not
    know the protocol, so nothing has to be wrong.
    """
    for family in evidence.asked_for:
        links = evidence.unmerged(family)
        if links and not cuts(evidence, family):
            yield Finding(
                "C15",
                Severity.INFO,
                (family,),
                "all that was received lately came in single packets, at "
                + ", ".join(f"{link.name} (MTU {link.mtu:,})" for link in links),
                "GRO merges TCP only, and where it is switched on; what is received "
                "in single packets is never big",
                f"if it is TCP: ethtool -K {shlex.quote(links[0].name)} gro on",
                tuple(link.name for link in links),
            )
