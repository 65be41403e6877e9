# SPDX-License-Identifier: Apache-2.0
"""The histogram of a row: what its device sends beside what it receives. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from agent.snapshot.histogram import Histogram, used_slots
from agent.snapshot.model import Hook, Scope
from agent.snapshot.sample import POD_RECEIVE, Line
from agent.views.cells import DASH, si
from agent.views.report import bar, percent, size
from agent.views.top.spans import BOLD, FAINT, KEY, PLAIN, WARNING, Spans
from agent.views.traffic import Row
from agent.views.width import cut, left, shorten

_MARKS = {65536: "64 KiB · above: only with BIG TCP", 196608: "192 KiB"}
_LABEL = 9
_GAP = 2
_MOST = 76  # columns of one histogram
_PERCENT = 8
_BIG = 65536


@dataclass(frozen=True, slots=True)
class _Way:
    """How to draw. `few` facts; slots that are empty side by side `folded` into one
    line; marks `inline`, in the line of the slot that they end.
    """

    few: bool = False
    folded: bool = False
    inline: bool = False


_WAYS = (  # the first that fits
    _Way(),
    _Way(folded=True),
    _Way(few=True),
    _Way(few=True, folded=True),
    _Way(few=True, folded=True, inline=True),
)


def histogram_lines(
    rows: Iterable[Row], chosen: Row, seconds: float, size: tuple[int, int]
) -> list[Spans]:
    """The lines for the row that was chosen, so that they fit into this size. Where
    nothing passed in the last `seconds`: what was counted since the agent began.
    """
    width, height = size
    its = [row for row in rows if _beside(row, chosen)]
    send = _first(its, (str(Hook.NET_DEV_START_XMIT),))
    receive = _first(its, (POD_RECEIVE, str(Hook.NETIF_RECEIVE_SKB)))
    queue = _first(its, (str(Hook.NET_DEV_QUEUE),))
    columns = {"TX": send, "RX": receive}
    if chosen.key.hook not in {row.key.hook for row in (send, receive) if row}:
        columns = {chosen.hook.upper(): chosen}
    there = {name: row for name, row in columns.items() if row}
    lately = seconds > 0 and any(_count(row.line) for row in there.values())
    when = f"the last {seconds:.1f} s" if lately else "since the agent began to count"
    family = f"  IP{chosen.family}" if chosen.family != DASH else ""
    when = f"  {when}"
    title = shorten(chosen.name, width - len(family + when)) + family
    each = min(_MOST, (width - _LABEL) // len(there) - _GAP)

    def drawn(way: _Way) -> list[Spans]:
        gap: list[Spans] = [] if way.few else [()]
        facts = {
            label: [value(row, lately) for row in there.values()]
            for label, value in (_FEW_FACTS if way.few else _FACTS).items()
        }
        return [
            ((title, BOLD), (when, FAINT)),
            *gap,
            _line("", [_head(name, row) for name, row in there.items()], each, BOLD),
            *(_line(label, cells, each, PLAIN) for label, cells in facts.items()),
            *_cut(queue, send, lately),
            *gap,
            *_slots([_passed(row, lately) for row in there.values()], each, way),
        ]

    ways = map(drawn, _WAYS)
    return next((lines for lines in ways if len(lines) <= height), drawn(_WAYS[-1]))


def _beside(row: Row, chosen: Row) -> bool:
    if row.family != chosen.family:
        return False
    if chosen.scope is Scope.PODS and chosen.line.pod:
        return row.scope is Scope.PODS and row.line.pod == chosen.line.pod
    mine, its = chosen.key, row.key
    return (mine.cookie, mine.ifindex) == (its.cookie, its.ifindex)


def _first(rows: list[Row], hooks: tuple[str, ...]) -> Row | None:
    for hook in hooks:
        for row in rows:
            if row.key.hook == hook:
                return row
    return None


def _passed(row: Row, lately: bool) -> Histogram:
    return (row.line if lately else row.total).lengths.histogram


def _count(line: Line) -> int:
    return line.lengths.histogram.count


def _head(name: str, row: Row) -> str:
    return f"{name}  {row.key.hook}"


def _packets(row: Row, lately: bool) -> str:
    found = (row.line if lately else row.total).lengths.segments_per_skb
    return DASH if found is None else f"{found:.1f}"


_FACTS: dict[str, Callable[[Row, bool], str]] = {
    "skb/s": lambda row, lately: si(row.skbs) if lately else DASH,
    "B/s": lambda row, lately: si(row.bytes) if lately else DASH,
    ">64 KiB": lambda row, lately: percent(_passed(row, lately).big_share),
    "longest": lambda row, _: f"{row.longest:,} B",
    "pkt/skb": _packets,
    "limit": lambda row, _: f"{row.limit:,} B" if row.limit else DASH,
}
_FEW_FACTS: dict[str, Callable[[Row, bool], str]] = {
    "skb/s": lambda row, lately: "  ".join(
        (
            _FACTS["skb/s"](row, lately),
            f"{_FACTS['B/s'](row, lately)} B/s",
            f"{_packets(row, lately)} pkt/skb",
        )
    ),
    ">64 KiB": _FACTS[">64 KiB"],
}


def _line(label: str, cells: list[str], each: int, style: str) -> Spans:
    drawn = (" " * _GAP + left(cut(cell, each), each) for cell in cells)
    return ((label.rjust(_LABEL), FAINT), ("".join(drawn).rstrip(), style))


def _cut(queue: Row | None, send: Row | None, lately: bool) -> list[Spans]:
    """Big ones that were queued, and did not leave as big ones."""
    if queue is None or not (queued := _passed(queue, lately).count):
        return []
    left = _passed(send, lately).above(_BIG) if send else 0
    text = f"{'':{_LABEL}}  queued above 64 KiB: {queued:,}, left whole: {left:,}"
    return [((text, WARNING if left < queued / 2 else PLAIN),)]


def _slots(columns: list[Histogram], each: int, way: _Way) -> list[Spans]:
    edges = columns[0].edges
    used = used_slots(columns)
    if not used:
        return [((f"{'':{_LABEL}}  nothing was counted yet", FAINT),)]
    lines: list[Spans] = []
    wide = _LABEL + len(columns) * (_GAP + each)
    # Both marks are always there, wherever the skbs are.
    marks = [edges.index(edge) for edge in _MARKS if edge in edges]
    shown = range(min([used[0], *marks]), max([used[-1], *marks]) + 1)
    empty = [
        slot not in marks and not any(column.slots[slot] for column in columns)
        for slot in range(len(edges) + 1)
    ]
    for is_empty, run in groupby(shown, key=empty.__getitem__):
        slots = list(run)
        if way.folded and is_empty and len(slots) > 1:
            lines.append((("…".rjust(_LABEL), FAINT),))
            continue
        for slot in slots:
            mark = _MARKS.get(edges[slot]) if slot < len(edges) else None
            fill = "·" if mark and way.inline else " "
            lines.append(_slot(columns, slot, each, fill))
            if mark and not way.inline:
                lines.append(((f" {mark} ".center(wide, "·"), WARNING),))
    return lines


def _slot(columns: list[Histogram], slot: int, each: int, fill: str) -> Spans:
    edges = columns[0].edges
    big = slot > 0 and edges[slot - 1] >= _BIG
    label = size(edges[slot]) if slot < len(edges) else "longer"
    spans: Spans = ((label.rjust(_LABEL), FAINT),)
    for histogram in columns:
        share = histogram.slots[slot] / histogram.count if histogram.count else 0
        room = each - _PERCENT
        drawn = bar(share, room)
        said = (percent(share) if share else "").rjust(_PERCENT, fill)
        spans = (
            *spans,
            (" " * _GAP + drawn, KEY if big else PLAIN),
            (fill * (room - len(drawn)), WARNING),
            (said, PLAIN),
        )
    return spans
