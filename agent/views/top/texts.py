# SPDX-License-Identifier: Apache-2.0
"""Findings, help, tabs and the line of keys. Pure."""

from collections.abc import Sequence

from agent.snapshot.schema import SnapshotJson
from agent.views.check import finding_lines
from agent.views.top.spans import (
    BAD,
    BOLD,
    GOOD,
    KEY,
    MARK,
    PLAIN,
    WARNING,
    Spans,
    between,
    fitted,
)
from agent.views.who import no_findings, not_checked
from agent.views.width import wrap

_MOST = 110  # columns of a text that is read
_SEVERITIES = {"critical": BAD, "warning": WARNING}
_DETAILS = ("    why:", "    do:", "    which:")

KEYS = (
    ("up down", "choose a row; PgUp, PgDn, Home and End too"),
    ("Enter", "histogram of the row, TX beside RX; Esc leads back"),
    ("s S", "sort by the next column; turn the order round (or click on a head)"),
    ("< >", "sort by the column to the left or right"),
    ("/", "only names that contain a text; Esc takes it away"),
    ("f", "IPv4, IPv6 or both (4, 6, 0 at once)"),
    ("h", "one hook, the next, all"),
    ("p", "pods, devices, all"),
    ("o", "devices of scope other one by one, or summed"),
    ("F Tab", "findings: what is wrong, why, what to do"),
    ("Space", "pause: nothing is asked, nothing recorded"),
    ("+ -", "longer or shorter interval"),
    ("q Ctrl-C", "quit; Ctrl-Z: suspend"),
)
REPLAY_KEYS = (
    ("Left Right", "back and on; Home and End: to the ends of the record"),
    ("+ -", "faster or slower, x1 to x64"),
)
_COLUMNS = """\
tx is net_dev_start_xmit: what the driver gets. rx is netif_receive_skb: after GRO.
queue is net_dev_queue: before software GSO, only skbs above 64 KiB. gro is
napi_gro_receive_entry: each wire packet. pod rx: what a pod received, by address.
B/s counts L3 lengths. >64 KiB: share of the bytes in skbs above 64 KiB; trend: that
share, sample by sample. longest: since the agent began to count. pkt/skb: wire packets
that an skb stands for. A packet passes several hooks and devices: never add up rows."""


def findings_lines(snapshot: SnapshotJson | None, width: int) -> list[Spans]:
    """All findings, with why and what to do."""
    found = snapshot.findings if snapshot else ()
    if not found:
        text = no_findings(snapshot) if snapshot else "no answer yet"
        is_good = snapshot and snapshot.cilium and not not_checked(snapshot)
        style = GOOD if is_good else PLAIN
        return [((line, style),) for line in wrap(text, max(1, width - 1))]
    lines: list[Spans] = []
    for finding in found:
        style = _SEVERITIES.get(finding.severity, BOLD)
        # A terminal has an end: a command that is wider has to be wrapped, too.
        for text in finding_lines(finding, min(width - 1, _MOST), wrap_commands=True):
            if text.startswith(_DETAILS):
                style = PLAIN
            lines.append(fitted(((shown_line(text), style),), width))
        lines.append(())
    return lines[:-1]


def shown_line(text: str) -> str:
    """A line without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def plain(text: str, width: int) -> list[Spans]:
    """A text, cut where a line ends, whatever its width is."""
    wide = max(1, width)
    return [((text[at : at + wide], PLAIN),) for at in range(0, len(text), wide)]


def help_lines(width: int, *, replay: bool) -> list[Spans]:
    """Every key, and what the columns are."""
    keys: Sequence[tuple[str, str]] = KEYS
    if replay:
        keys = (*(each for each in KEYS if each[0] != "+ -"), *REPLAY_KEYS)
    lines: list[Spans] = [(("Keys", BOLD),)]
    for key, text in keys:
        head = f"{key:>12}  "
        for line in wrap(text, width - len(head)):
            lines.append(((head, KEY), (line, PLAIN)))
            head = " " * len(head)
    lines += [(), (("Columns", BOLD),)]
    wrapped = wrap(_COLUMNS, min(width - 1, _MOST + 2), first="  ", then="  ")
    return lines + [((text, PLAIN),) for text in wrapped]


def tabs(pane: str, rows: int, findings: int, chosen: str, width: int) -> Spans:
    """Which pane is open, the keys to the others, and what the table leaves out."""
    names = {
        "traffic": f"Traffic {rows}",
        "findings": f"F Findings {findings}",
        "histogram": "↵ Histogram",
        "help": "? Help",
    }
    spans: Spans = ()
    for name, text in names.items():
        if name in ("traffic", "findings", "histogram", pane):
            style = (
                MARK
                if name == pane
                else BAD
                if name == "findings" and findings
                else PLAIN
            )
            spans = (*spans, (f" {text} ", style), (" ", PLAIN))
    return between(spans, ((chosen, WARNING),), width)


def footer(pane: str, width: int, *, replay: bool) -> Spans:
    """The keys that matter here, as many as there is room for."""
    keys = [("q", "quit"), ("?", "help")]
    if pane == "traffic":
        keys += [("s", "sort"), ("/", "filter"), ("f", "IP"), ("h", "hook")]
        keys += [("p", "pods"), ("space", "pause")]
    else:
        keys += [("esc", "back"), ("↑↓", "scroll"), ("space", "pause")]
    if replay:
        keys += [("←→", "seek"), ("+-", "speed")]
    else:
        keys += [("+-", "interval")]
    if pane == "traffic":
        keys += [("o", "others")]
    spans: Spans = ()
    room = width
    for key, text in keys:
        room -= len(key) + len(text) + 2
        if room >= -1:
            spans = (*spans, (key, KEY), (f" {text} ", PLAIN))
    return spans
