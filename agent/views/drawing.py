# SPDX-License-Identifier: Apache-2.0
"""Drawings in SVG, to stand inside a page that has their classes' colours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from statistics import median

from agent.snapshot.histogram import Histogram, used_slots
from agent.views.report import percent, size

_ROW = 22
_KIB = 1024
_MARKS = {64 * _KIB: "64 KiB · above: BIG TCP", 192 * _KIB: "192 KiB · Cilium's limit"}
_BARS_WIDTH, _BAR_LEFT, _BAR_RIGHT = 460, 78, 70
_DOTS_WIDTH, _DOT_LEFT, _DOT_RIGHT = 940, 120, 110
_MOST_DOTS = 100  # of a row: more are one grey line
_TICKS = 5
_LEAST = 1e-300  # of an axis: less has no fifths


def _svg(width: int, height: int, about: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(about)}">\n' + "\n".join(parts) + "\n</svg>"
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def slots_to_show(histograms: Sequence[Histogram]) -> range:
    """From the first slot that is used in any of them to the last; and to the one up
    to 192 KiB, so that it is seen what is missing. They have the same edges.
    """
    edges = histograms[0].edges
    used = used_slots(histograms)
    if not used:
        return range(0)
    limit = 192 * _KIB
    least = edges.index(limit) if limit in edges else used[-1]
    return range(used[0], max(used[-1], least) + 1)


def bars(histogram: Histogram, slots: range, about: str) -> str:
    """A histogram: a bar for the share of skbs in each slot, and the marks."""
    edges, count = histogram.edges, histogram.count
    room = _BARS_WIDTH - _BAR_LEFT - _BAR_RIGHT
    parts, y = [], 4.0
    for slot in slots:
        name = size(edges[slot]) if slot < len(edges) else "longer"
        is_big = slot > 0 and edges[slot - 1] >= 64 * _KIB
        share = histogram.slots[slot] / count if count else 0
        parts.append(_text(_BAR_LEFT - 8, y + 15, name, "end"))
        if share:
            width = max(1.0, share * room)
            parts.append(
                f'<rect x="{_BAR_LEFT}" y="{y + 3:.1f}" width="{width:.1f}" '
                f'height="{_ROW - 6}" class="{"big" if is_big else "small"}"/>'
            )
            told = percent(share) if share >= 0.0005 else "<0.1 %"  # noqa: PLR2004
            parts.append(_text(_BAR_LEFT + width + 6, y + 15, told, "start"))
        y += _ROW
        if slot < len(edges) and edges[slot] in _MARKS:
            y += _ROW
            line = y - _ROW / 2 + 4
            parts.append(
                f'<line x1="{_BAR_LEFT}" y1="{line}" x2="{_BARS_WIDTH}" y2="{line}" '
                'class="mark"/>'
            )
            parts.append(_text(_BARS_WIDTH, line - 4, _MARKS[edges[slot]], "marked"))
    return _svg(_BARS_WIDTH, round(y + 4), about, parts)


@dataclass(frozen=True, slots=True)
class Dots:
    """A row of a chart: what was measured, run by run, in A and in B."""

    label: str
    a: Sequence[float]
    b: Sequence[float]


def dots(rows: Sequence[Dots], tell: Callable[[float], str], about: str) -> str:
    """A dot for each run and a stroke at the median; A above B; the axis begins at 0.

    `tell` says a value with its unit.
    """
    highest = max((max(*row.a, *row.b) for row in rows), default=0)
    if highest < _LEAST:
        highest = 1
    step = _step(highest)
    room = _DOTS_WIDTH - _DOT_LEFT - _DOT_RIGHT
    bottom = 8 + len(rows) * 2 * _ROW
    parts = []

    def x(value: float) -> float:
        return _DOT_LEFT + value / highest * room

    at = 0.0
    while at <= highest:
        parts.append(
            f'<line x1="{x(at):.1f}" y1="4" x2="{x(at):.1f}" y2="{bottom}" '
            'class="grid"/>'
        )
        parts.append(_text(x(at), bottom + 16, tell(at), "middle"))
        at += step
    for number, row in enumerate(rows):
        top = 4 + number * 2 * _ROW
        parts.append(_text(_DOT_LEFT - 10, top + _ROW + 5, row.label, "end"))
        for kind, values, y in (("a", row.a, top + 14), ("b", row.b, top + 32)):
            parts += [
                f'<circle cx="{x(value):.1f}" cy="{y}" r="4" class="{kind} dot"/>'
                for value in _thinned(values)
            ]
            middle = median(values)
            parts.append(
                f'<rect x="{x(middle) - 1.5:.1f}" y="{y - 8}" width="3" height="16" '
                f'class="{kind}"/>'
            )
            end = _DOTS_WIDTH - _DOT_RIGHT + 12
            parts.append(_text(end, y + 5, tell(middle), f"start {kind}"))
    return _svg(_DOTS_WIDTH, bottom + 24, about, parts)


def _thinned(values: Sequence[float]) -> list[float]:
    """All, or as many as can be told apart, from the lowest to the highest."""
    if len(values) <= _MOST_DOTS:
        return list(values)
    ordered, last = sorted(values), len(values) - 1
    return [ordered[round(i * last / (_MOST_DOTS - 1))] for i in range(_MOST_DOTS)]


def _step(highest: float) -> float:
    """1, 2 or 5 times a power of ten: about so many ticks."""
    rough = highest / _TICKS
    power = 10.0 ** floor(log10(rough))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= rough)
