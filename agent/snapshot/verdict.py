# SPDX-License-Identifier: Apache-2.0
"""Is BIG TCP true, on this node, now? A state per IP family, and why. Pure.

Findings are in agent.snapshot.findings, one small function each.
"""

from dataclasses import dataclass
from enum import StrEnum

from agent.snapshot.cuts import cuts
from agent.snapshot.evidence import ENOUGH_BYTES, FAMILIES, Evidence
from agent.snapshot.findings import FINDINGS
from agent.snapshot.findings.finding import Finding
from agent.snapshot.model import Family


class State(StrEnum):
    """How it stands with one family; the first that holds, in this order."""

    UNSUPPORTED = "unsupported"  # the kernel has no BIG TCP
    DISABLED = "disabled"  # nobody asked, nothing is big
    UNMANAGED = "unmanaged"  # nobody asked, and yet packets are big
    REFUSED = "refused"  # wanted, not applied
    DROPPED = "dropped"  # big packets are refused on their way
    SEGMENTED = "segmented"  # big packets are cut in software, at a known device
    PARTIAL = "partial"  # some devices or pods are still at 64 KiB
    IDLE = "idle"  # applied; no traffic that could be big
    ACTIVE = "active"  # applied, and big packets cross the node


@dataclass(frozen=True, slots=True)
class Judgement:
    """A state, and the reason in a few words."""

    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that can be told of a Snapshot."""

    families: dict[Family, Judgement]
    findings: tuple[Finding, ...]


def judge(evidence: Evidence) -> Verdict:
    """The verdict over a Snapshot; what happened is taken from its `recent`."""
    return Verdict(
        {family: _judge(evidence, family) for family in FAMILIES},
        tuple(finding for find in FINDINGS for finding in find(evidence)),
    )


def _names(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _judge(evidence: Evidence, family: Family) -> Judgement:
    if not evidence.supported(family):
        first = "6.3" if family is Family.IPV4 else "5.19"
        return Judgement(State.UNSUPPORTED, f"the kernel is older than {first}")
    asked = evidence.asked(family)
    if evidence.refused(family):
        return Judgement(State.REFUSED, _why_refused(evidence, family))
    if dropped := evidence.dropped(family):
        why = f"{dropped:,} packets were too big to be forwarded"
        return Judgement(State.DROPPED, why)
    if found := cuts(evidence, family):
        names = _names([cut.name for cut in found])
        return Judgement(State.SEGMENTED, f"cut in software at {names}")
    _, big = evidence.traffic(family)
    if not asked:
        if big:
            return Judgement(State.UNMANAGED, "packets are big, Cilium was not asked")
        return Judgement(State.DISABLED, _why_disabled(evidence, family))
    if links := evidence.reset(family):
        names = _names([link.name for link in links])
        return Judgement(State.PARTIAL, f"at 64 KiB: {names}")
    if pods := evidence.legacy_pods(family):
        names = _names([pod.name for pod in pods])
        return Judgement(State.PARTIAL, f"to be restarted: {names}")
    return _idle_or_active(evidence, family)


def _why_disabled(evidence: Evidence, family: Family) -> str:
    if evidence.configured(family) is not None or evidence.applied:
        return "not enabled in Cilium"
    if evidence.mute:
        return "Cilium does not answer: whether it is enabled is not known"
    if evidence.has_cilium:
        return "Cilium was not asked: whether it is enabled is not known"
    return "there is no Cilium here"


def _why_refused(evidence: Evidence, family: Family) -> str:
    applied = evidence.applied
    if applied is None or not evidence.answers:
        who = "does not answer" if evidence.mute else "was not asked"
        return f"Cilium's agent {who}, and no device is raised"
    if not applied.big_tcp[family].enabled:
        return "the Cilium agent runs without it"
    return f"Cilium could set no more than {applied.big_tcp[family].max_gso:,} bytes"


def _idle_or_active(evidence: Evidence, family: Family) -> Judgement:
    total, big = evidence.traffic(family)
    if big:
        share = f"{100 * big / total:.0f} % of the bytes are in packets above 64 KiB"
        return Judgement(State.ACTIVE, share)
    if total >= ENOUGH_BYTES:
        return Judgement(State.IDLE, "traffic, but no packet above 64 KiB")
    return Judgement(State.IDLE, "not enough traffic to tell")
