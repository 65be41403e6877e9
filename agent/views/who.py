# SPDX-License-Identifier: Apache-2.0
"""Which Cilium a picture tells of, and what may be said where nothing was found."""

from agent.snapshot.schema import SnapshotJson

# What nobody sees without a hook.
HOOK_MEANING = {
    "net_dev_start_xmit": "what is sent",
    "netif_receive_skb": "what is received",
    "net_dev_queue": "what is cut in software",
}


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


def not_checked(snapshot: SnapshotJson) -> list[str]:
    """What a node without findings was not examined for: Cilium, where it belongs on
    the node or in its cluster; what a hook shows that is not attached; a source whose
    last reading failed.
    """
    missing = []
    wanted, agent = snapshot.wanted, snapshot.cilium_agent
    belongs = (wanted and wanted.found) or (agent and agent.expected)
    if snapshot.cilium is None and belongs:
        source = snapshot.sources.get("cilium")
        why = (source and source.problem) or "there is none on this node"
        missing.append(f"Cilium ({why})")
    for hook, what in HOOK_MEANING.items():
        if not snapshot.attached.get(hook):
            missing.append(f"{what} ({hook} is not attached)")
    for name, source in snapshot.sources.items():
        if name != "cilium" and not source.up and source.errors:
            missing.append(f"{name} ({source.problem or 'it cannot be read'})")
    return missing


def no_findings(snapshot: SnapshotJson) -> str:
    """The sentence for a node without findings, with what was not checked."""
    if missing := not_checked(snapshot):
        return f"No problems found; not checked: {', '.join(missing)}"
    return "No problems found on this node"
