# SPDX-License-Identifier: Apache-2.0
"""Wrong with how Cilium was told to run, or with what it runs on."""

import shlex
from collections.abc import Iterator

from agent.snapshot.cilium import BigTcp, CiliumPod
from agent.snapshot.evidence import FAMILIES, LEGACY, Evidence, gso_size
from agent.snapshot.findings.finding import Finding, Severity, utc
from agent.snapshot.findings.log_lines import last_error
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
    """C02: wanted, and perhaps the flag is on; the size is not."""
    for family in evidence.asked_for:
        if told := _without_effect(evidence, family):
            yield Finding("C02", Severity.WARNING, (family,), *told)


def _without_effect(evidence: Evidence, family: Family) -> tuple[str, str, str] | None:
    """What was seen, why it matters, what to do."""
    if not evidence.answers:
        if evidence.mute or not evidence.refused(family):
            return None  # C22 tells it
        problem = evidence.snapshot.problems.get("cilium", "not asked")
        seen = f"{family} BIG TCP wanted, no device of the node above {LEGACY:,} bytes"
        return (
            f"{seen}; Cilium's agent: {problem}",
            "what is configured is not applied, or Cilium does not run",
            "see the Cilium agent's log; without --no-cilium its agent is asked",
        )
    told = evidence.applied.big_tcp[family] if evidence.applied else BigTcp()
    if not told.enabled or not evidence.supported(family):
        return None
    if told.max_gso <= LEGACY:
        size = told.max_gso or LEGACY
        return (
            f"Cilium reports {family} BIG TCP enabled with {size:,} bytes",
            "`enabled` is only the flag: no packet can be above 64 KiB",
            "see the limiting device (C03, C04), and the Cilium agent's log",
        )
    if 0 < told.max_gro <= LEGACY:
        return (
            f"Cilium reports {family} BIG TCP enabled, GRO with {told.max_gro:,} bytes",
            "what is sent can be big, what is received is not merged above 64 KiB",
            "see the Cilium agent's log",
        )
    return None


def mute(evidence: Evidence) -> Iterator[Finding]:
    """C22: Cilium belongs on this node, and its agent does not answer."""
    if not evidence.mute:
        return
    snapshot, pod = evidence.snapshot, evidence.cilium_pod
    problem = snapshot.problems.get("cilium") or "its socket is not there"
    seen = f"Cilium's agent does not answer: {problem}"
    refused = tuple(f for f in evidence.asked_for if evidence.refused(f))
    if refused:
        sizes = ", ".join(
            f"{link.name} at {gso_size(link, family):,} bytes ({family})"
            for family in refused
            for link in evidence.natives
        )
        seen += f"; {sizes or f'no device above {LEGACY:,} bytes'}"
    if pod is not None:
        seen += f"; its pod {_how_it_ended(pod)}"
        remedy = pod.logs_command
    else:
        node = snapshot.node or "NODE"
        where = shlex.quote(f"spec.nodeName={node}")
        remedy = (
            "look at its pod: kubectl get pods -A -l k8s-app=cilium --field-selector "
            f"{where}; at that pod's log, with --previous where it was restarted: "
            "kubectl logs -n NAMESPACE POD -c cilium-agent"
        )
        if evidence.no_cilium_objects:
            remedy += (
                "; if Cilium was removed (neither its ConfigMap nor its pod was found):"
                " restart the node, its devices and files stay until then"
            )
    yield Finding(
        "C22",
        Severity.WARNING,
        evidence.asked_for or FAMILIES,
        seen,
        "Cilium does not start where it refuses its configuration; what it has "
        "applied, and to which pods, is not known while it does not answer",
        remedy,
    )


def _how_it_ended(pod: CiliumPod) -> str:
    """In a few words, with the line of its log that matters most."""
    words = f"{pod.namespace}/{pod.name}"
    if pod.exit_code is None:
        return f"{words} {'waits: ' + pod.waiting if pod.waiting else 'runs'}"
    words += f" ended with exit code {pod.exit_code}"
    if pod.finished is not None:
        words += f" at {utc(pod.finished)}"
    if pod.restarts:
        words += f", was restarted {pod.restarts:,} times"
    if pod.waiting:
        words += f" ({pod.waiting})"
    line = last_error(pod.message)
    return f"{words}: {line}" if line else words


def _by_whom(evidence: Evidence) -> str:
    if evidence.answers:
        return ""
    who = "does not answer" if evidence.mute else "was not asked"
    return f" (as configured: its agent {who})"


def _tunnels_refused(evidence: Evidence) -> bool:
    """A Cilium that does not answer, and devices that cannot: from 1.19 on it asks
    the kernel whether tunnels can be big, before that it does not. What an earlier
    start has raised stays raised.
    """
    able = any((link.sizes.tso_max or 0) > LEGACY for link in evidence.tunnels)
    return bool(evidence.asked_for) and evidence.mute and not able


def prerequisites(evidence: Evidence) -> Iterator[Finding]:
    """C05: what Cilium's BIG TCP needs, and does not always check."""
    families, datapath = evidence.asked_for, evidence.datapath
    missing = []
    if datapath.host_routing == "Legacy":
        missing.append(("host routing is Legacy", "set bpf.hostLegacyRouting=false"))
    if datapath.masquerading == "iptables":
        missing.append(("masquerading is by iptables", "set bpf.masquerade=true"))
    if datapath.kube_proxy_replacement and not datapath.replaces_kube_proxy:
        missing.append(
            (
                f"kube-proxy replacement is {datapath.kube_proxy_replacement}",
                "set kubeProxyReplacement=true",
            )
        )
    if datapath.routing_mode == "tunnel" and (
        datapath.before(1, 19) or _tunnels_refused(evidence)
    ):
        missing.append(("routing is by tunnel", "set routingMode=native"))
    if families and missing:
        yield Finding(
            "C05",
            Severity.CRITICAL,
            families,
            f"Cilium's {'; '.join(seen for seen, _ in missing)}{_by_whom(evidence)}",
            "BIG TCP needs eBPF host routing without a tunnel: else Cilium does not "
            "start, or the kernel's routing refuses IPv6 packets above 64 KiB",
            "; ".join(remedy for _, remedy in missing),
        )


def dispatched_by_tunnel(evidence: Evidence) -> Iterator[Finding]:
    """C10: DSR's tunnel devices. Cilium's validateConfig, pkg/datapath/linux/bigtcp."""
    dispatch = evidence.datapath.dsr_dispatch.lower()
    stuck = dispatch == "ipip" or (dispatch == "geneve" and _tunnels_refused(evidence))
    if evidence.asked_for and stuck:
        yield Finding(
            "C10",
            Severity.WARNING,
            evidence.asked_for,
            f"Cilium's DSR dispatch is {dispatch}{_by_whom(evidence)}",
            "its tunnels cannot be above 64 KiB: Cilium 1.19 and newer do not start so",
            "set loadBalancer.dsrDispatch=opt",
        )


def tunnel_limits(evidence: Evidence) -> Iterator[Finding]:
    """C10: Cilium 1.19 fails to set up a tunnel device that cannot be big."""
    families, applied = evidence.asked_for, evidence.applied
    stuck = [
        link.name for link in evidence.tunnels if (link.sizes.tso_max or 0) <= LEGACY
    ]
    if families and stuck and applied and evidence.datapath.release == (1, 19):
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
                "restart Cilium, in its namespace: kubectl rollout restart "
                "daemonset/cilium",
            )


def encrypted(evidence: Evidence) -> Iterator[Finding]:
    """C18: IPsec always; WireGuard while Cilium refused any encryption."""
    families, datapath = evidence.asked_for, evidence.datapath
    refused = datapath.encryption == "IPsec" or (
        datapath.encryption == "Wireguard" and datapath.before(1, 15)
    )
    if families and refused:
        yield Finding(
            "C18",
            Severity.CRITICAL,
            families,
            f"Cilium encrypts with {datapath.encryption}{_by_whom(evidence)}",
            "BIG TCP does not work with it: Cilium does not start with both",
            "do without one of them",
        )
