# SPDX-License-Identifier: Apache-2.0
"""The screen of `top`: what comes in, what keys do, what is shown."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.message import Message
from textual.widgets import Input

from agent.errors import AgentError, Exit
from agent.views.arrange import View
from agent.views.top import texts
from agent.views.top.driver import SlowLineDriver
from agent.views.top.feed import Feed, Missed, Told
from agent.views.top.header import Status, header
from agent.views.top.histogram import histogram_lines
from agent.views.top.keys import BINDINGS
from agent.views.top.lines import Lines
from agent.views.top.spans import BOLD
from agent.views.top.table import Head, Table
from agent.views.traffic import Row, Traffic

LEAST_WIDTH, LEAST_HEIGHT = 60, 15
_LEAST_REASONS = 20  # lines of a screen with room for them above a table
_LEAST_REASONS_OF_TEXT = 30  # above a text
_TICK_SECONDS = 1.0
_TEXTS = ("findings", "histogram", "help")  # panes of text; the other is the table


class TopApp(App[AgentError | int]):
    """Ends with 0, with 130 for Ctrl-C, or with what makes it impossible to go on."""

    AUTO_FOCUS = None  # a widget with the focus would take keys of ours to scroll
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; layout: vertical; }
    #header, #tabs, #head, #footer { height: 1; }
    #typed { height: 1; layout: horizontal; display: none; }
    #prompt { width: 8; height: 1; }
    #filter { width: 1fr; height: 1; border: none; padding: 0;
              background: ansi_default; color: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    class Came(Message):
        """The feed told something."""

        def __init__(self, told: Told) -> None:
            super().__init__()
            self.told = told

    def __init__(self, feed: Feed, clock: Callable[[], float] = time.monotonic) -> None:
        # Without ansi_color NO_COLOR would be shades of grey.
        super().__init__(driver_class=SlowLineDriver, ansi_color=True)
        self.theme = "ansi-dark"  # the terminal's own colours, on dark and light
        self.view = View()
        self.pane = "traffic"
        self.traffic = Traffic()
        self._feed = feed
        self._clock = clock
        self._came = clock()
        self._problem = ""
        self._opened: Row | None = None  # whose histogram is shown

    def compose(self) -> ComposeResult:
        """All there is, most of it hidden."""
        yield Lines("small")
        yield Lines("header")
        yield Lines("tabs")
        yield Head("head")
        yield Table("table")
        for name in _TEXTS:
            yield Lines(name)
        yield Lines("footer")
        with Container(id="typed"):
            yield Lines("prompt")
            # Else what was typed before the focus came would be replaced.
            yield Input(id="filter", compact=True, select_on_focus=False)

    def on_load(self) -> None:
        """Before the terminal is ours: who ends us then, gets it back."""
        loop = asyncio.get_running_loop()
        for number, code in (
            (signal.SIGTERM, Exit.OK),
            (signal.SIGHUP, Exit.OK),
            (signal.SIGINT, Exit.INTERRUPTED),
        ):
            loop.add_signal_handler(number, self.exit, code)

    def on_mount(self) -> None:
        """Begin to ask."""
        self.app_resume_signal.subscribe(self, self._redraw)
        self._lines("prompt").show([(("filter:", BOLD),)])
        self.set_interval(_TICK_SECONDS, self.draw_header)
        self.draw()
        self._feed.start(lambda told: self.post_message(self.Came(told)))

    def _redraw(self, _: object) -> None:
        """The shell has written over the screen meanwhile."""
        self.screen.refresh(layout=True)
        for lines in self.query(Lines):
            lines.refresh()

    def on_top_app_came(self, event: Came) -> None:
        """Samples, or none."""
        told = event.told
        if isinstance(told, Missed):
            if told.fatal:
                self.exit(told.error)
                return
            self._problem = told.error.message
            self.draw_header()
            return
        if told.jumped:
            self.traffic.forget()
        for sample in told.samples:
            self.traffic.take(sample)
        self._came, self._problem = self._clock(), ""
        self.draw()

    def on_resize(self) -> None:
        """Everything depends on the size."""
        self.draw()
        # Textual forgets a layout that comes while nothing may be drawn.
        self.screen.refresh(layout=True)

    def draw(self) -> None:
        """All that can be seen; what did not change is not drawn again."""
        width, height = self.size
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        typing = self._typing
        for line in self.query(Lines):
            its = {"traffic": ("head", "table")}.get(self.pane, (self.pane,))
            seen = line.id in (*its, "header", "tabs", "prompt") or (
                line.id == "footer" and not typing
            )
            line.display = small if line.id == "small" else seen and not small
        self.query_one("#typed").display = typing and not small
        if small:
            least = f"it needs {LEAST_WIDTH}x{LEAST_HEIGHT}"
            said = f"This terminal is {width}x{height}: too small, {least}."
            self._lines("small").show(texts.plain(said, width))
            return
        rows = self.view.arranged(self.traffic.rows)
        above = self.draw_header() + 1  # and the tabs
        snapshot = self.traffic.sample.snapshot if self.traffic.sample else None
        findings = len(snapshot.findings) if snapshot else 0
        self._lines("tabs").show(
            [texts.tabs(self.pane, len(rows), findings, str(self.view), width)]
        )
        self._lines("footer").show(
            [texts.footer(self.pane, width, replay=self._feed.replay)]
        )
        self._table.put(rows)
        match self.pane:
            case "traffic":
                self.query_one(Head).draw(self._table.columns, self.view)
            case "findings":
                self._lines("findings").show(texts.findings_lines(snapshot, width))
            case "help":
                lines = texts.help_lines(width, replay=self._feed.replay)
                self._lines("help").show(lines)
            case "histogram" if self._opened:
                rows = [*self.traffic.rows]
                self._opened = _again(rows, self._opened)
                self._lines("histogram").show(
                    histogram_lines(
                        rows,
                        self._opened,
                        self.traffic.seconds,
                        (width, height - above - 1),
                    )
                )

    def draw_header(self) -> int:
        """The head, whose age changes by itself; how many lines it takes."""
        age = self._clock() - self._came
        feed = self._feed
        late = age > feed.patience and not feed.paused
        lines = header(
            self.traffic.sample.snapshot if self.traffic.sample else None,
            Status(
                who=feed.who,
                pace=feed.pace,
                notice=feed.notice,
                problem=self._problem,
                age=age,
                stale=bool(self._problem) or late,
                paused=feed.paused,
                replay=feed.replay,
            ),
            self.size.width,
            reasons=self.size.height
            >= (_LEAST_REASONS_OF_TEXT if self.pane in _TEXTS else _LEAST_REASONS),
        )
        widget = self._lines("header")
        if widget.styles.height is None or widget.styles.height.value != len(lines):
            widget.styles.height = len(lines)
        widget.show(lines)
        return len(lines)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Within a text a slash is a slash."""
        if action == "filter" and self._typing:
            return False
        return super().check_action(action, parameters)

    # What keys do.

    def action_end(self, code: int) -> None:
        """Leave."""
        self.exit(code)

    def action_sort(self, step: int) -> None:
        """By the next column."""
        self._choose(self.view.sorted_by(step))

    def action_backwards(self) -> None:
        """The other way round."""
        self._choose(replace(self.view, backwards=not self.view.backwards))

    def action_family(self, family: str | None = None) -> None:
        """This one, or the next."""
        view = self.view
        chosen = view.next_family() if family is None else replace(view, family=family)
        self._choose(chosen)

    def action_hook(self) -> None:
        """The next hook that there is."""
        self._choose(self.view.next_hook(self.traffic.rows))

    def action_kind(self) -> None:
        """Pods, devices, all."""
        self._choose(self.view.next_kind())

    def action_others(self) -> None:
        """One by one, or summed."""
        self._choose(replace(self.view, others=not self.view.others))

    def action_filter(self) -> None:
        """Type a text."""
        self.pane = "traffic"
        self._input.value = self.view.text
        self.query_one("#typed").display = True  # else it takes no focus
        self.screen.set_focus(self._input)
        self.draw()

    def action_pause(self) -> None:
        """Pause, or go on."""
        self._feed.pause()
        self.draw_header()

    def action_longer(self, step: int) -> None:
        """A longer interval; a record goes faster."""
        self._feed.faster(step if self._feed.replay else -step)
        self.draw_header()

    def action_seek(self, step: int) -> None:
        """In a record, by so many steps."""
        self._feed.seek(step)

    def action_to_end(self, end: int) -> None:
        """Of the record, of the table, of a text."""
        if self._feed.replay:
            self._feed.seek(None, end=bool(end))
        else:
            self.action_move((1 if end else -1) * 1_000_000)

    def action_pane(self, name: str) -> None:
        """Open it, or go back to the table."""
        self.set_focus(None)
        self._opened = self._table.chosen if name == "histogram" else None
        back = self.pane == name or (name == "histogram" and self._opened is None)
        self.pane = "traffic" if back else name
        if self.pane in _TEXTS:
            self._lines(self.pane).scroll_home(animate=False)
        self.draw()

    def action_leave(self) -> None:
        """To the table; from the table to all of it."""
        if self._typing or self.pane == "traffic":
            self._input.value = ""
            self.view = replace(self.view, text="")
            self.set_focus(None)
        self.pane = "traffic"
        self.draw()

    def action_move(self, step: int) -> None:
        """The cursor, or a text that is longer than the screen."""
        if self.pane == "traffic":
            self._table.move(step)
        else:
            self._lines(self.pane).scroll_relative(y=step, animate=False)

    def action_page(self, step: int) -> None:
        """By a screenful."""
        height = self.query_one(f"#{self._seen}").size.height
        self.action_move(step * max(1, height - 1))

    # What is typed and clicked.

    def on_input_changed(self) -> None:
        """Filter while it is typed."""
        if self._typing:
            self._choose(replace(self.view, text=self._input.value))

    def on_input_submitted(self) -> None:
        """It stays, and keys are keys again."""
        self.set_focus(None)
        self.draw()

    def on_head_chosen(self, event: Head.Chosen) -> None:
        """A head was clicked: by it, or the other way round."""
        again = event.name == self.view.sort
        backwards = again and not self.view.backwards
        self._choose(replace(self.view, sort=event.name, backwards=backwards))

    def on_table_opened(self) -> None:
        """A row was clicked twice."""
        self.action_pane("histogram")

    def _choose(self, view: View) -> None:
        self.view = view
        self.draw()

    @property
    def _seen(self) -> str:
        return "table" if self.pane == "traffic" else self.pane

    @property
    def _typing(self) -> bool:
        return self.focused is self._input

    @property
    def _input(self) -> Input:
        return self.query_one("#filter", Input)

    @property
    def _table(self) -> Table:
        return self.query_one(Table)

    def _lines(self, id: str) -> Lines:
        return self.query_one(f"#{id}", Lines)


def _again(rows: list[Row], row: Row) -> Row:
    """The same row, as it is now; as it was where it is gone."""
    return next((each for each in rows if each.key == row.key), row)


def run(feed: Feed) -> int:
    """Show it until the user has seen enough; the exit code. AgentError where it
    cannot go on; the terminal is as it was.
    """
    app = TopApp(feed)
    try:
        ended = app.run()
    finally:
        feed.stop()
    if isinstance(ended, AgentError):
        raise ended
    if app.return_code:  # textual has told what happened
        return Exit.FAILED
    return Exit.OK if ended is None else ended
