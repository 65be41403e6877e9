# SPDX-License-Identifier: Apache-2.0
"""The table: rows in order, one of them chosen, formatted when they are seen."""

from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message

from agent.snapshot.sample import LineKey
from agent.views.arrange import TEXTS, View
from agent.views.cells import Columns
from agent.views.top.lines import Lines
from agent.views.top.spans import BOLD, FAINT, PLAIN, SHARE, Span, Spans
from agent.views.traffic import Row

_SILENT_SECONDS = 10  # then a row fades
_GAP = (" ", PLAIN)


class Head(Lines):
    """Heads of the columns; a click sorts by one."""

    class Chosen(Message):
        """The column to sort by."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def draw(self, columns: Columns, view: View) -> None:
        """For these columns."""
        self._columns = columns
        heads = columns.heads(
            view.sort, descending=(view.sort not in TEXTS) != view.backwards
        )
        spans: list[Span] = []
        for name, text in heads.items():
            # The arrow may take the gap before a column that is full.
            gap = " " * (columns.widths[name] + 1 - len(text)) if spans else ""
            style = f"{BOLD} underline" if name == view.sort else BOLD
            spans += [(gap, PLAIN), (text, style)]
        self.show([tuple(spans)])

    def on_click(self, event: Click) -> None:
        """Sort by the column under the mouse."""
        at = 0
        for name, width in self._columns.widths.items():
            if at <= event.x <= at + width and name != "trend":
                self.post_message(self.Chosen(name))
                return
            at += width + 1


class Table(Lines):
    """The rows. The chosen one is followed where sorting moves it, once a user has
    chosen; before, it is the first.
    """

    class Opened(Message):
        """The chosen row, to see more of it."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.rows: list[Row] = []
        self.columns = Columns.of(80, [])
        self.at = 0
        self._key: LineKey | None = None

    @property
    def chosen(self) -> Row | None:
        """The row that the cursor is on."""
        return self.rows[self.at] if self.rows else None

    def put(self, rows: list[Row]) -> None:
        """These rows, in this order."""
        self.rows = rows
        if self._key is not None:
            for at, row in enumerate(rows):
                if row.key == self._key:
                    self.at = at
                    break
        self.at = max(0, min(self.at, len(rows) - 1))
        self.columns = Columns.of(self.app.size.width, rows)
        size = Size(1, len(rows))
        if size != self.virtual_size:
            self.virtual_size = size
        self._follow()
        self.redraw()

    def move(self, step: int) -> None:
        """The cursor, by so many rows."""
        if self.rows:
            self.at = max(0, min(self.at + step, len(self.rows) - 1))
            self._key = self.rows[self.at].key
            self._follow()
            self.redraw()

    def on_click(self, event: Click) -> None:
        """Choose a row; once more: open it."""
        at = self.scroll_offset.y + event.y
        if at < len(self.rows):
            again = at == self.at and self._key is not None
            self.move(at - self.at)
            if again:
                self.post_message(self.Opened())

    def on_resize(self, _: Resize) -> None:
        """The cursor stays in sight."""
        self._follow()

    def _follow(self) -> None:
        top, height = self.scroll_offset.y, self.size.height
        if height and not top <= self.at < top + height:
            to = self.at if self.at < top else self.at - height + 1
            self.scroll_to(y=to, animate=False, immediate=True)

    def line(self, number: int) -> Spans:
        """A row, formatted now."""
        if number >= len(self.rows):
            if number == 0:
                return (("no row: nothing passed yet, or nothing is shown", FAINT),)
            return ()
        row = self.rows[number]
        cells = self.columns.cells(row)
        if number == self.at:
            return ((" ".join(cells.values()), "reverse"),)
        spans: list[Span] = []
        for name, text in cells.items():
            spans += [(text, _style(row, name)), _GAP]
        return tuple(spans[:-1])


def _style(row: Row, column: str) -> str:
    if row.silent >= _SILENT_SECONDS:
        return FAINT
    if column == "name":
        return BOLD
    if column in (">64 KiB", "trend"):
        return SHARE
    return PLAIN
