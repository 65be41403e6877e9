# SPDX-License-Identifier: Apache-2.0
"""`check` for people: the JSON of /api/snapshot as text."""

import re

from agent.snapshot.schema import FindingJson, SnapshotJson
from agent.views.who import HOOK_MEANING, cilium_words, no_findings
from agent.views.width import WIDTH, table, wrap

_DASH = "-"
# A command in a remedy begins the remedy or stands after a colon or a semicolon. It
# ends at the next semicolon.
COMMAND = re.compile(r"((?:^|(?<=[:;] ))(?:bigtcp-agent|ethtool|kubectl) .+?(?=; |$))")


def word(value: bool | None) -> str:
    """Yes, no, or a dash where nobody says."""
    return _DASH if value is None else "yes" if value else "no"


def _size(value: int | None) -> str:
    return _DASH if value is None else f"{value:,}"


def _share(share: float | None) -> str:
    return _DASH if share is None else f"{100 * share:.0f} %"


def _verdicts(snapshot: SnapshotJson) -> list[str]:
    head = ["", "wanted", "enabled", "applied", "above 64 KiB", "verdict"]
    rows = [
        [
            name,
            word(family.configured),
            word(family.enabled),
            _size(snapshot.max_gso(name)),
            _share(family.big_share),
            family.state,
        ]
        for name, family in snapshot.families.items()
    ]
    lines = table([head, *rows], names=(0, 5))
    return [*lines, "", *reason_lines(snapshot)]


def reason_lines(snapshot: SnapshotJson, *, states: bool = False) -> list[str]:
    """Why the verdict of each family is what it is; `states`: and what it is."""
    lines = []
    for name, family in snapshot.families.items():
        state = f"{family.state}: " if states else ""
        lines += wrap(f"{name}: {state}{family.reason}", then="  ")
    return lines


def _devices(snapshot: SnapshotJson) -> list[str]:
    """Devices of the node, without the host sides of the pods."""
    sides = {pod.interface for pod in snapshot.pods}
    rows = [["device", "kind", "gso", "gro", "gso ipv4", "gro ipv4", "tso max"]]
    for device in snapshot.devices:
        if device.name not in sides:
            sizes = device.sizes
            rows.append(
                [
                    device.name,
                    device.kind or "hardware",
                    _size(sizes.gso_max),
                    _size(sizes.gro_max),
                    _size(sizes.gso_ipv4_max),
                    _size(sizes.gro_ipv4_max),
                    _size(sizes.tso_max),
                ]
            )
    return table(rows, names=(0, 1))


def finding_lines(
    finding: FindingJson, width: int = WIDTH, *, wrap_commands: bool = False
) -> list[str]:
    """A finding of at most `width` columns: what was seen, why, what to do.

    Each command in the remedy is a line of its own, to be pasted into a shell: as wide
    as it is, unless `wrap_commands`.
    """
    families = ", ".join(finding.families)
    indent = "    "
    lines = wrap(
        f"{finding.id} {finding.severity} ({families}): {finding.seen}",
        width,
        then=indent,
    )
    if finding.why:
        lines += wrap(f"why: {finding.why}", width, first=indent, then=indent)
    if finding.remedy:
        deeper = f"{indent}  "
        # COMMAND has one group: text and commands take turns.
        text, *others = COMMAND.split(finding.remedy)
        lines += wrap(f"do: {text}", width, first=indent, then=indent)
        for command, after in zip(others[::2], others[1::2], strict=True):
            if wrap_commands:
                lines += wrap(command, width, first=deeper, then=deeper)
            else:
                lines.append(deeper + command)
            text = after.removeprefix("; ")
            lines += wrap(text, width, first=indent, then=indent)
    if finding.subjects:
        which = ", ".join(finding.subjects)
        lines += wrap(f"which: {which}", width, first=indent, then=indent)
    return lines


def check_text(snapshot: SnapshotJson, who: str) -> str:
    """The answer in a screenful: verdicts, findings, devices, what was not seen.
    `who` saw it.
    """
    seconds = snapshot.recent.seconds
    what = f"Linux {snapshot.kernel}, {cilium_words(snapshot)}"
    lines = [
        *wrap(f"{what}; {seconds:.0f} s of traffic, as seen by"),
        who,
        "",
        *_verdicts(snapshot),
        "",
    ]
    for finding in snapshot.findings:
        lines += [*finding_lines(finding), ""]
    if not snapshot.findings:
        lines += [*wrap(no_findings(snapshot)), ""]
    lines += _devices(snapshot)
    unseen = _unseen(snapshot)
    return "\n".join([*lines, *([""] if unseen else []), *unseen])


def _unseen(snapshot: SnapshotJson) -> list[str]:
    """What was not seen, or not now: what is shown may be old, or not be all."""
    found = []
    for name, source in snapshot.sources.items():
        if not source.up:
            why = source.problem or "there is none here"
            if source.answered is not None:
                age = snapshot.taken - source.answered
                why += f"; shown is what it said {age:.0f} s ago"
            found.append(f"{name}: {why}")
    for hook, what in HOOK_MEANING.items():
        if not snapshot.attached.get(hook):
            found.append(f"{what}: {hook} is not attached")
    for reason, count in snapshot.unrecorded.items():
        if count and reason != "no_address":  # counted, if for no pod
            found.append(f"{count:,} packets since the agent started: {reason}")
    foreign = snapshot.maps.get("foreign_devices")
    if foreign and foreign.used >= foreign.limit:
        found.append(
            "single devices of other namespaces beyond the first "
            f"{foreign.limit:,}: they are counted together"
        )
    lost = snapshot.unknown_pods
    found += [f"the size of {pod}: its device is not here" for pod in lost]
    return [line for each in found for line in wrap(f"not seen: {each}", then="  ")]
