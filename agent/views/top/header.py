# SPDX-License-Identifier: Apache-2.0
"""The head of the screen: which node, what is asked for and what is so. Pure."""

import time
from dataclasses import dataclass

from agent.snapshot.schema import FamilyJson, SnapshotJson
from agent.views.cells import limit, percent
from agent.views.check import word
from agent.views.report import bar
from agent.views.top.spans import (
    BAD,
    BOLD,
    FAINT,
    GOOD,
    MARK,
    PLAIN,
    WARNING,
    Spans,
    between,
    length,
)
from agent.views.traffic import shown
from agent.views.who import cilium_words
from agent.views.width import cut

STATES = {
    "active": GOOD,
    "segmented": BAD,
    "dropped": BAD,
    "refused": BAD,
    "partial": WARNING,
    "unmanaged": WARNING,
}
_REASON = 30  # columns that a reason beside the rest needs
_STATE = 11
_BAR = 10
_WHOLE = 73  # columns of what a family has, without the reason


@dataclass(frozen=True, slots=True)
class Status:
    """How the screen stands. `age` of what it shows in seconds, on our own clock;
    `stale` where that is too old; `problem` why there is nothing newer.
    """

    who: str
    pace: str
    notice: str = ""
    problem: str = ""
    age: float = 0.0
    stale: bool = False
    paused: bool = False
    replay: bool = False


def header(
    snapshot: SnapshotJson | None, status: Status, width: int, *, reasons: bool
) -> list[Spans]:
    """The lines. `reasons` of verdicts may take lines of their own."""
    if snapshot is None:
        left: Spans = (("bigtcp-agent top", BOLD),)
        return [between(left, _marks(status, ""), width), _who(status, width)]
    taken = time.localtime(snapshot.taken)
    clock = time.strftime("%Y-%m-%d %T" if status.replay else "%T", taken)
    left = (
        (shown(snapshot.node or "bigtcp-agent top"), BOLD),
        (f"  Linux {shown(snapshot.kernel)}", PLAIN),
        (f"  {cilium_words(snapshot)}", PLAIN),
    )
    lines = [between(left, _marks(status, clock), width)]
    for name, family in snapshot.families.items():
        lines += _family(name, family, snapshot.max_gso(name), width, reasons=reasons)
    return [*lines, _who(status, width)]


def _marks(status: Status, clock: str) -> Spans:
    marks = [
        *(["REPLAY"] if status.replay else []),
        *(["PAUSED"] if status.paused else []),
        *([f"STALE {status.age:.0f} s"] if status.stale else []),
    ]
    found: Spans = (("  ", PLAIN),)
    for mark in marks:
        found = (*found, (f" {mark} ", MARK), (" ", PLAIN))
    return (*found, (f"{status.pace}  {clock}".rstrip(), FAINT))


def _who(status: Status, width: int) -> Spans:
    if status.problem:
        return ((cut(f"{status.problem}; trying again", width), BAD),)
    said = f"{'from' if status.replay else 'as seen by'} {status.who}"
    notice: Spans = ((status.notice, WARNING),) if status.notice else ()
    return between(((said, FAINT),), notice, width)


def _family(
    name: str, family: FamilyJson, gso: int | None, width: int, *, reasons: bool
) -> list[Spans]:
    share = family.big_share
    state, reason = shown(family.state), shown(family.reason)
    above, drawn = "  above 64 KiB ", bar(share or 0, _BAR).ljust(_BAR)
    if width < _WHOLE:
        above, drawn = "  >64 KiB ", ""
    spans: Spans = (
        (f"{name}  ", BOLD),
        (f"{cut(state, _STATE):<{_STATE}}", STATES.get(state, PLAIN)),
        ("  wanted ", FAINT),
        (f"{word(family.configured):<3}", PLAIN),
        ("  applied ", FAINT),
        (f"{limit(gso or 0):<4}", PLAIN),
        (above, FAINT),
        (f"{percent(share):>4} ", PLAIN),
        (drawn, PLAIN),
    )
    room = width - length(spans) - 2
    if room >= max(_REASON, min(len(reason), 3 * _REASON)):
        return [(*spans, ("  " + cut(reason, room), PLAIN))]
    if not reasons:
        return [spans]
    indent = " " * (len(name) + 2)
    return [spans, ((indent + cut(reason, width - len(indent)), PLAIN),)]
