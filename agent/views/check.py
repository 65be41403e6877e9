# SPDX-License-Identifier: Apache-2.0
"""`check` for people: the JSON of agent.views.picture as text."""

import re
from collections.abc import Mapping
from typing import Any

from agent.views.who import cilium_words, no_findings
from agent.views.width import WIDTH, table, wrap

_DASH = "-"
# What nobody sees without a hook.
_SEEN_BY = {
    "net_dev_start_xmit": "what is sent",
    "netif_receive_skb": "what is received",
    "net_dev_queue": "what is cut in software",
}
# A command in a remedy begins the remedy or stands after a colon or a semicolon. It
# ends at the next semicolon.
COMMAND = re.compile(r"((?:^|(?<=[:;] ))(?:bigtcp-agent|ethtool|kubectl) .+?(?=; |$))")


def _word(value: bool | None) -> str:
    return _DASH if value is None else "yes" if value else "no"


def _size(value: int | None) -> str:
    return _DASH if value is None else f"{value:,}"


def _share(family: dict[str, Any]) -> str:
    if not family["bytes"]:
        return _DASH
    return f"{100 * family['big_bytes'] / family['bytes']:.0f} %"


def _applied(picture: dict[str, Any], family: str) -> str:
    cilium = picture["cilium"]
    return _DASH if cilium is None else _size(cilium["big_tcp"][family]["max_gso"])


def _verdicts(picture: dict[str, Any]) -> list[str]:
    head = ["", "wanted", "enabled", "applied", "above 64 KiB", "verdict"]
    rows = [
        [
            name,
            _word(family["configured"]),
            _word(family["enabled"]),
            _applied(picture, name),
            _share(family),
            family["state"],
        ]
        for name, family in picture["families"].items()
    ]
    lines = table([head, *rows], names=(0, 5))
    return [*lines, "", *reason_lines(picture)]


def reason_lines(picture: Mapping[str, Any], *, states: bool = False) -> list[str]:
    """Why the verdict of each family is what it is; `states`: and what it is."""
    lines = []
    for name, family in picture["families"].items():
        state = f"{family['state']}: " if states else ""
        lines += wrap(f"{name}: {state}{family['reason']}", then="  ")
    return lines


def _devices(picture: dict[str, Any]) -> list[str]:
    """Devices of the node, without the host sides of the pods."""
    sides = {pod["interface"] for pod in picture["pods"]}
    rows = [["device", "kind", "gso", "gro", "gso ipv4", "gro ipv4", "tso max"]]
    for device in picture["devices"]:
        if device["name"] not in sides:
            sizes = device["sizes"]
            rows.append(
                [
                    device["name"],
                    device["kind"] or "hardware",
                    *(
                        _size(sizes[name])
                        for name in (
                            "gso_max",
                            "gro_max",
                            "gso_ipv4_max",
                            "gro_ipv4_max",
                            "tso_max",
                        )
                    ),
                ]
            )
    return table(rows, names=(0, 1))


def finding_lines(
    finding: dict[str, Any], width: int = WIDTH, *, wrap_commands: bool = False
) -> list[str]:
    """A finding of at most `width` columns: what was seen, why, what to do.

    Each command in the remedy is a line of its own, to be pasted into a shell: as wide
    as it is, unless `wrap_commands`.
    """
    families = ", ".join(finding["families"])
    indent = "    "
    lines = wrap(
        f"{finding['id']} {finding['severity']} ({families}): {finding['seen']}",
        width,
        then=indent,
    )
    if finding["why"]:
        lines += wrap(f"why: {finding['why']}", width, first=indent, then=indent)
    if finding["remedy"]:
        deeper = f"{indent}  "
        # COMMAND has one group: text and commands take turns.
        text, *others = COMMAND.split(finding["remedy"])
        lines += wrap(f"do: {text}", width, first=indent, then=indent)
        for command, after in zip(others[::2], others[1::2], strict=True):
            if wrap_commands:
                lines += wrap(command, width, first=deeper, then=deeper)
            else:
                lines.append(deeper + command)
            text = after.removeprefix("; ")
            lines += wrap(text, width, first=indent, then=indent)
    if finding["subjects"]:
        which = ", ".join(finding["subjects"])
        lines += wrap(f"which: {which}", width, first=indent, then=indent)
    return lines


def check_text(picture: dict[str, Any], who: str) -> str:
    """The answer in a screenful: verdicts, findings, devices, what was not seen.
    `who` saw it.
    """
    seconds = picture["recent"]["seconds"]
    what = f"Linux {picture['kernel']}, {cilium_words(picture)}"
    lines = [
        *wrap(f"{what}; {seconds:.0f} s of traffic, as seen by"),
        who,
        "",
        *_verdicts(picture),
        "",
    ]
    for finding in picture["findings"]:
        lines += [*finding_lines(finding), ""]
    if not picture["findings"]:
        lines += [*wrap(no_findings(picture)), ""]
    lines += _devices(picture)
    unseen = _unseen(picture)
    return "\n".join([*lines, *([""] if unseen else []), *unseen])


def _unseen(picture: dict[str, Any]) -> list[str]:
    """What was not seen, or not now: what is shown may be old, or not be all."""
    found = []
    for name, source in picture["sources"].items():
        if not source["up"]:
            why = source["problem"] or "there is none here"
            if source["answered"] is not None:
                age = picture["taken"] - source["answered"]
                why += f"; shown is what it said {age:.0f} s ago"
            found.append(f"{name}: {why}")
    for hook, what in _SEEN_BY.items():
        if not picture["attached"].get(hook):
            found.append(f"{what}: {hook} is not attached")
    for reason, count in picture["unrecorded"].items():
        if count and reason != "no_address":  # counted, if for no pod
            found.append(f"{count:,} packets since the agent started: {reason}")
    foreign = picture.get("maps", {}).get("foreign_devices")
    if foreign and foreign["used"] >= foreign["limit"]:
        found.append(
            "single devices of other namespaces beyond the first "
            f"{foreign['limit']:,}: they are counted together"
        )
    # An agent of an earlier version does not tell them.
    lost = picture.get("unknown_pods", ())
    found += [f"the size of {pod}: its device is not here" for pod in lost]
    return [line for each in found for line in wrap(f"not seen: {each}", then="  ")]
