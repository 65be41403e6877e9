# SPDX-License-Identifier: Apache-2.0
"""Plots as SVG: what Grafana would roughly show of the same answers.

For looking at them where there is no Grafana, and for the documentation. Sizes are
pixels, values and times as Prometheus gives them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from charts.dashboards.picture import COLORS, FAINT, GRID, INK, Box, color, shown, text

Points = Sequence[tuple[float, float]]
PALETTE = (
    *("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9"),
    *("#37872d", "#fade2a", "#1f60c4", "#fa6400", "#c4162a", "#8f3bb8"),
)
_TITLE, _LEFT, _BOTTOM = 24, 62, 34


@dataclass(frozen=True)
class Series:
    """One line: its name in the legend and its points (time, value)."""

    name: str
    points: Points


@dataclass(frozen=True)
class Span:
    """The time shown, the time between two points, and what happened meanwhile."""

    start: float
    end: float
    step: float
    events: Sequence[float]


def _plot(box: Box) -> Box:
    return Box(
        box.x + _LEFT,
        box.y + _TITLE + 6,
        box.w - _LEFT - 12,
        box.h - _TITLE - 6 - _BOTTOM,
    )


def nice(top: float, unit: str) -> float:
    """The end of an axis with four round steps that holds `top`."""
    step = top / 4
    if unit in ("bytes", "Bps"):
        return float(4 * 2 ** math.ceil(math.log2(step)))
    power = 10.0 ** math.floor(math.log10(step))
    found = next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= step * 0.999)
    return 4 * (max(found, 1) if unit == "none" else found)


def _axes(plot: Box, top: float, unit: str, span: Span) -> list[str]:
    found = []
    for part in range(5):
        y = plot.y + plot.h * (1 - part / 4)
        found.append(
            f'<line x1="{plot.x}" x2="{plot.x + plot.w}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="{GRID}"/>'
        )
        words = shown(top * part / 4, unit)
        found.append(text(plot.x - 5, y + 4, words, size=10, fill=FAINT, anchor="end"))
    return found + _times(plot, span)


def _times(plot: Box, span: Span) -> list[str]:
    minutes = (span.end - span.start) / 60
    return [
        text(
            plot.x + plot.w * part / 4,
            plot.y + plot.h + 13,
            f"{minutes * part / 4:.1f} min",
            size=10,
            fill=FAINT,
            anchor="end" if part == 4 else "middle",  # noqa: PLR2004
        )
        for part in range(5)
    ]


def _events(plot: Box, span: Span) -> list[str]:
    found = []
    for at in span.events:
        x = plot.x + plot.w * (at - span.start) / (span.end - span.start)
        found.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{plot.y}" y2="{plot.y + plot.h}" '
            f'stroke="{COLORS["blue"]}" stroke-dasharray="3 3"/>'
        )
    return found


def _pieces(points: Points, step: float) -> list[list[tuple[float, float]]]:
    """Where an answer has a gap the line has one."""
    found: list[list[tuple[float, float]]] = []
    for point in points:
        if not found or point[0] - found[-1][-1][0] > 1.5 * step:
            found.append([])
        found[-1].append(point)
    return found


def _legend(box: Box, names: Mapping[str, str]) -> list[str]:
    found, x = [], box.x + 10
    for name, fill in names.items():
        wide = 24 + 6.2 * len(name)
        if x + wide > box.x + box.w - 12 and x > box.x + 10:
            found.append(text(x, box.y + box.h - 6, "…", size=10))
            break
        y = box.y + box.h - 12
        found.append(f'<rect x="{x:.1f}" y="{y}" width="10" height="3" fill="{fill}"/>')
        found.append(text(x + 14, y + 6, name, size=10))
        x += wide
    return found


def _stacked(series: Sequence[Series]) -> list[Series]:
    """Each upon those before it; what is missing is nothing."""
    times = sorted({t for one in series for t, _ in one.points})
    below = dict.fromkeys(times, 0.0)
    found = []
    for one in series:
        own = dict(one.points)
        below = {t: v + own.get(t, 0) for t, v in below.items()}
        found.append(Series(one.name, list(below.items())))
    return found


def lines(
    box: Box,
    series: Sequence[Series],
    panel: Mapping[str, Any],
    span: Span,
) -> str:
    """A time series panel: lines, points, or areas on top of each other."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults.get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    fixed = {
        each["matcher"]["options"]: color(each["properties"][0]["value"]["fixedColor"])
        for each in panel["fieldConfig"].get("overrides", [])
    }
    marks = [
        (mark["value"], color(mark["color"]))
        for mark in defaults.get("thresholds", {}).get("steps", [])
        if mark["value"] is not None and custom.get("thresholdsStyle")
    ]
    plot = _plot(box)
    series = [
        Series(one.name, [(t, v) for t, v in one.points if math.isfinite(v)])
        for one in series
    ]
    drawn = [
        (fixed.get(one.name, PALETTE[at % len(PALETTE)]), one)
        for at, one in enumerate(_stacked(series) if stacked else series)
    ]
    values = [v for _, one in drawn for _, v in one.points]
    values += [mark for mark, _ in marks]
    unit = defaults.get("unit", "")
    top = float(defaults.get("max") or nice(max(values, default=0) or 1, unit))
    start, end = span.start, span.end

    def xy(point: tuple[float, float]) -> str:
        x = plot.x + plot.w * (point[0] - start) / (end - start)
        return f"{x:.1f},{plot.y + plot.h * (1 - min(point[1], top) / top):.1f}"

    found = _axes(plot, top, unit, span)
    found += _events(plot, span)
    for mark, fill in marks:
        left, right = xy((start, mark)).split(","), xy((end, mark)).split(",")
        found.append(
            f'<line x1="{left[0]}" y1="{left[1]}" x2="{right[0]}" y2="{right[1]}" '
            f'stroke="{fill}" stroke-dasharray="6 4"/>'
        )
    for fill, one in reversed(drawn):
        for piece in _pieces(one.points, span.step):
            path = " ".join(map(xy, piece))
            if stacked:
                floor = plot.y + plot.h
                first, last = (xy(piece[at]).split(",")[0] for at in (0, -1))
                area = f"{first},{floor} {path} {last},{floor}"
                found.append(f'<polygon points="{area}" fill="{fill}"/>')
            elif custom.get("drawStyle") == "points" or len(piece) == 1:
                for x, y in (xy(point).split(",") for point in piece):
                    found.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{fill}"/>')
            else:
                found.append(
                    f'<polyline points="{path}" fill="none" stroke="{fill}" '
                    'stroke-width="1.5"/>'
                )
    found += _legend(box, {one.name: fill for fill, one in drawn})
    return "".join(found)


def heatmap(box: Box, series: Sequence[Series], span: Span) -> str:
    """Cells by upper edge (the name of a series) and time; darker is more."""
    edges = sorted(series, key=lambda one: float(one.name))
    plot = _plot(box)
    tall = plot.h / max(len(edges), 1)
    start, end = span.start, span.end
    times = sorted({t for one in edges for t, _ in one.points})
    step = min((b - a for a, b in pairwise(times)), default=1)
    wide = plot.w * step / (end - start)
    cells, before = [], dict.fromkeys(times, 0.0)
    for at, one in enumerate(edges):
        for t, cumulative in one.points:
            cells.append((t, at, cumulative - before[t]))
            before[t] = cumulative
    most = max((value for _, _, value in cells), default=0) or 1
    found = _times(plot, span)
    for t, at, value in cells:
        if value > most * 1e-4:
            strength = 0.08 + 0.92 * math.sqrt(value / most)
            x = plot.x + plot.w * (t - start) / (end - start)
            y = plot.y + plot.h - (at + 1) * tall
            found.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                f'height="{tall - 0.5:.1f}" fill="#c4162a" '
                f'fill-opacity="{strength:.2f}"/>'
            )
    for at, one in enumerate(edges):
        y = plot.y + plot.h - at * tall
        if float(one.name) == 65536:  # noqa: PLR2004  where BIG TCP begins
            found.append(
                f'<line x1="{plot.x}" x2="{plot.x + plot.w}" y1="{y - tall:.1f}" '
                f'y2="{y - tall:.1f}" stroke="{INK}" stroke-dasharray="4 3"/>'
            )
        if at % 2 == 0 or tall > 11:  # noqa: PLR2004  pixels of a line of text
            words = "more" if "Inf" in one.name else shown(float(one.name), "bytes")
            found.append(
                text(plot.x - 5, y - 1, words, size=10, fill=FAINT, anchor="end")
            )
    return "".join(found)


def timeline(
    box: Box,
    series: Sequence[Series],
    words: Mapping[str, Mapping[str, Any]],
    span: Span,
) -> str:
    """A row a series; `words` are the options of the panel's value mapping."""
    plot = Box(box.x + 190, box.y + _TITLE + 4, box.w - 202, box.h - _TITLE - 24)
    start, end = span.start, span.end
    tall = plot.h / max(len(series), 1)
    found = _times(plot, span)
    for at, one in enumerate(series):
        y = plot.y + at * tall
        found.append(
            text(plot.x - 6, y + tall / 2 + 4, one.name, size=10, anchor="end")
        )
        runs: list[list[Any]] = []
        for t, value in one.points:
            if runs and runs[-1][2] == value:
                runs[-1][1] = t
            else:
                if runs:
                    runs[-1][1] = t
                runs.append([t, t, value])
        for first, last, value in runs:
            shape = words.get(f"{value:.0f}", {})
            x = plot.x + plot.w * (first - start) / (end - start)
            wide = max(plot.w * (last - first) / (end - start), 1)
            found.append(
                f'<rect x="{x:.1f}" y="{y + 1:.1f}" width="{wide:.1f}" '
                f'height="{tall - 2:.1f}" fill="{color(shape.get("color", FAINT))}" '
                'fill-opacity="0.8"/>'
            )
            said = str(shape.get("text", f"{value:g}"))
            if wide > 7 * len(said):
                found.append(text(x + 4, y + tall / 2 + 4, said, size=10))
    return "".join(found)
