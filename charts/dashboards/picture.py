# SPDX-License-Identifier: Apache-2.0
"""What every panel's picture is made of, in SVG. Sizes are pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Grafana's names of colours.
COLORS = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "dark-red": "#c4162a",
    "blue": "#5794f2",
    "purple": "#b877d9",
}
INK, FAINT, GRID = "#24292e", "#6e7680", "#e4e7eb"
_ROW = 15
_BINARY = ("B", "KiB", "MiB", "GiB")


@dataclass(frozen=True)
class Box:
    """Where a panel may draw."""

    x: float
    y: float
    w: float
    h: float


def color(name: str) -> str:
    """A colour of Grafana for SVG."""
    return COLORS.get(name, name)


def shown(value: float, unit: str) -> str:
    """As Grafana writes a value with this unit, nearly."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit in ("bytes", "Bps"):
        power = 0
        while abs(value) >= 1024 and power < len(_BINARY) - 1:  # noqa: PLR2004
            value, power = value / 1024, power + 1
        return f"{value:.3g} {_BINARY[power]}" + ("/s" if unit == "Bps" else "")
    if unit == "s":
        scales = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))
        scale, name = next((s for s in scales if value >= s[0]), scales[-1])
        return f"{value / scale:.3g} {name}"
    for scale, letter in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}" + {"pps": " p/s", "ops": " ops/s"}.get(unit, "")


def text(  # noqa: PLR0913  as SVG has them
    x: float,
    y: float,
    words: str,
    *,
    size: int = 11,
    fill: str = INK,
    anchor: str = "start",
    weight: str = "normal",
) -> str:
    """One line of words."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" '
        f'text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
    )


def frame(box: Box, title: str) -> str:
    """The panel itself."""
    return (
        f'<rect x="{box.x}" y="{box.y}" width="{box.w}" height="{box.h}" rx="2" '
        f'fill="#ffffff" stroke="{GRID}"/>'
        + text(box.x + 8, box.y + 16, title, size=12, weight="600")
    )


def number(box: Box, value: float | None, unit: str, fill: str) -> str:
    """A stat panel."""
    words = "no data" if value is None else shown(value, unit)
    return text(
        box.x + box.w / 2,
        box.y + box.h / 2 + 22,
        words,
        size=32,
        fill=fill,
        anchor="middle",
        weight="600",
    )


def table(box: Box, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of text; what has no room is counted."""
    wide = (box.w - 20) / max(len(header), 1)
    chars = int(wide / 5.8)
    found = [
        text(box.x + 10 + at * wide, box.y + 38, name[:chars], size=10, weight="600")
        for at, name in enumerate(header)
    ]
    room = int((box.h - 50) / _ROW)
    for line, row in enumerate(rows[:room]):
        y = box.y + 54 + line * _ROW
        for at, cell in enumerate(row):
            words = cell if len(cell) <= chars else cell[: chars - 1] + "…"
            found.append(text(box.x + 10 + at * wide, y, words, size=10))
    return "".join(found)
