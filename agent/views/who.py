# SPDX-License-Identifier: Apache-2.0
"""Which Cilium a picture tells of, and what may be said where nothing was found."""

from collections.abc import Mapping
from typing import Any


def cilium_words(picture: Mapping[str, Any]) -> str:
    """Cilium's version, and whether its agent answers now. Pictures of agents from
    before `cilium_agent` do not say whether Cilium should be there.
    """
    cilium, agent = picture.get("cilium"), picture.get("cilium_agent") or {}
    version = f"Cilium {cilium['version']}".rstrip() if cilium else ""
    if agent.get("mute"):
        return f"{version or 'Cilium'} does not answer"
    if agent.get("expected") and not version:
        return "Cilium was not asked"
    return version or "no Cilium"


def no_findings(picture: Mapping[str, Any]) -> str:
    """What is true of a node without findings: not that all is well, where Cilium
    belongs on it, or in its cluster, and no agent of it was seen.
    """
    wanted, agent = picture.get("wanted") or {}, picture.get("cilium_agent") or {}
    belongs = wanted.get("found") or agent.get("expected")
    if picture.get("cilium") is None and belongs:
        why = picture.get("sources", {}).get("cilium", {}).get("problem")
        why = why or "there is none on this node"
        return f"No problems found; not checked: Cilium ({why})"
    return "No problems found on this node"
