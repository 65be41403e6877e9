# SPDX-License-Identifier: Apache-2.0
"""Which Cilium a picture tells of, and what may be said where nothing was found."""

from agent.snapshot.schema import SnapshotJson


def cilium_words(snapshot: SnapshotJson) -> str:
    """Cilium's version, and whether its agent answers now. Pictures of agents from
    before `cilium_agent` do not say whether Cilium should be there.
    """
    cilium, agent = snapshot.cilium, snapshot.cilium_agent
    version = f"Cilium {cilium.version}".rstrip() if cilium else ""
    if agent and agent.mute:
        return f"{version or 'Cilium'} does not answer"
    if agent and agent.expected and not version:
        return "Cilium was not asked"
    return version or "no Cilium"


def no_findings(snapshot: SnapshotJson) -> str:
    """What is true of a node without findings: not that all is well, where Cilium
    belongs on it, or in its cluster, and no agent of it was seen.
    """
    wanted, agent = snapshot.wanted, snapshot.cilium_agent
    belongs = (wanted and wanted.found) or (agent and agent.expected)
    if snapshot.cilium is None and belongs:
        source = snapshot.sources.get("cilium")
        why = (source and source.problem) or "there is none on this node"
        return f"No problems found; not checked: Cilium ({why})"
    return "No problems found on this node"
