# SPDX-License-Identifier: Apache-2.0
"""A widget that shows lines, and draws again only those that changed.

A DataTable of 300 rows takes 4 % of a core to update once a second, and writes
every cell; this one formats and compares what can be seen.
"""

from collections.abc import Sequence
from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from agent.views.top.spans import Spans


@lru_cache(256)
def _style(name: str) -> Style:
    return Style.parse(name)


class Lines(ScrollView, can_focus=False):
    """Lines that are given by `show`; more than fit are scrolled."""

    DEFAULT_CSS = """
    Lines { background: ansi_default; color: ansi_default; scrollbar-size: 0 0; }
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._drawn: dict[int, Spans] = {}
        self._lines: Sequence[Spans] = ()

    def show(self, lines: Sequence[Spans]) -> None:
        """These from now on."""
        self._lines = lines
        size = Size(1, len(lines))  # never scrolled sideways
        if size != self.virtual_size:
            self.virtual_size = size
        self.redraw()

    def redraw(self) -> None:
        """Draw again what is not drawn as it should be now."""
        top = self.scroll_offset.y
        for y in range(self.size.height):
            spans = self.line(top + y)
            if y not in self._drawn or self._drawn[y] != spans:
                self.refresh(Region(0, y, self.size.width, 1))

    def line(self, number: int) -> Spans:
        """The line of this number, in all that is scrolled."""
        return self._lines[number] if number < len(self._lines) else ()

    def render_line(self, y: int) -> Strip:
        """Textual asks for a line of what can be seen."""
        spans = self.line(self.scroll_offset.y + y)
        self._drawn[y] = spans
        strip = Strip([Segment(text, _style(style)) for text, style in spans])
        return strip.adjust_cell_length(self.size.width, _style(""))
