# SPDX-License-Identifier: Apache-2.0
"""Wrong with how Cilium was told to run, or with what it runs on."""

from collections.abc import Iterator

from agent.snapshot.evidence import FAMILIES, LEGACY, Evidence
from agent.snapshot.findings.finding import Finding, Severity
from agent.snapshot.model import Family

_FIRST_KERNEL = {Family.IPV4: "6.3", Family.IPV6: "5.19"}


def kernel_too_old(evidence: Evidence) -> Iterator[Finding]:
    """C01."""
    for family in evidence.asked_for:
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
    for family in evidence.asked_for:
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


def prerequisites(evidence: Evidence) -> Iterator[Finding]:
    """C05: what Cilium's BIG TCP needs, and does not always check."""
    families, applied = evidence.asked_for, evidence.applied
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


def tunnel_limits(evidence: Evidence) -> Iterator[Finding]:
    """C10: Cilium 1.19 fails to set up a tunnel device that cannot be big."""
    families, applied = evidence.asked_for, evidence.applied
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


def encrypted(evidence: Evidence) -> Iterator[Finding]:
    """C18."""
    families, applied = evidence.asked_for, evidence.applied
    if families and applied and applied.encryption == "IPsec":
        yield Finding(
            "C18",
            Severity.CRITICAL,
            families,
            "Cilium encrypts with IPsec",
            "BIG TCP does not work with it",
            "do without one of them",
        )
