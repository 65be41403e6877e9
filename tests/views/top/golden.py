# SPDX-License-Identifier: Apache-2.0
"""Screens as text: `python -m tests.views.top.golden` writes them anew."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from textual.pilot import Pilot

from agent.errors import AgentError
from agent.views.top.app import TopApp
from agent.views.top.feed import Missed
from tests.views.top.fakes import FakeFeed

FOLDER = Path(__file__).parent / "screens"
SIZES = ((80, 24), (160, 48), (200, 60))
Act = Callable[["Screen"], Awaitable[None]]


class Screen:
    """A running screen, its feed and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.feed = FakeFeed()
        self.app = TopApp(self.feed, lambda: self.now)
        self.pilot: Pilot[AgentError | int]

    @property
    def lines(self) -> list[str]:
        """What a user sees."""
        strips = self.app.screen._compositor.render_strips()
        return [strip.text.rstrip() for strip in strips]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def reversed(self) -> list[str]:
        """The lines that are shown reversed from end to end of their text."""
        found = []
        for strip in self.app.screen._compositor.render_strips():
            said = [segment for segment in strip if segment.text.strip()]
            if said and all(each.style and each.style.reverse for each in said):
                found.append(strip.text.rstrip())
        return found

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def go(self, count: int = 1, **more: float) -> None:
        """So many samples more, a second each."""
        for _ in range(count):
            self.now += 1
            self.feed.go(**more)
            await self.pilot.pause()

    async def miss(self, error: Missed, seconds: float) -> None:
        self.now += seconds
        self.feed.miss(error)
        await self.pilot.pause()


def shown(act: Act, size: tuple[int, int] = (80, 24)) -> Screen:
    """Run a screen of this size, with three samples, and act on it."""
    os.environ["TZ"] = "UTC"
    time.tzset()
    screen = Screen()

    async def run() -> None:
        async with screen.app.run_test(size=size) as screen.pilot:
            await screen.go(3)
            await act(screen)
            # Else its timer may draw while its widgets go.
            screen.app.exit(screen.app.return_value)

    asyncio.run(run())
    return screen


def pressed(*keys: str) -> Act:
    async def act(screen: Screen) -> None:
        await screen.press(*keys)

    return act


async def silence(screen: Screen) -> None:
    error = AgentError("the agent at http://127.0.0.1:19715 answers no more", "")
    await screen.miss(Missed(error), 12)


async def paused_record(screen: Screen) -> None:
    screen.feed.replay = True
    screen.feed.pace = "x4, 4 of 600"
    screen.feed.who = "the record a.jsonl"
    await screen.go()
    await screen.press("space")


async def acknowledgements(screen: Screen) -> None:
    """What the lab's traffic looks like: both ways, and as many of them as big ones."""
    for row in screen.feed.rows[:2]:
        row.acks = 12_000
    await screen.go(2)
    await screen.press("enter")


SCREENS: dict[str, Act] = {
    "traffic": pressed(),
    "histogram": pressed("down", "down", "enter"),
    "acknowledgements": acknowledgements,
    "findings": pressed("F"),
    "help": pressed("question_mark"),
    "others": pressed("o", "h", "6", "0"),
    "stale": silence,
    "replay": paused_record,
}


def draw(name: str, size: tuple[int, int]) -> str:
    """A screen as it is drawn now."""
    act, found = SCREENS[name], ""

    async def acted(screen: Screen) -> None:
        nonlocal found
        await act(screen)
        found = screen.text + "\n"

    shown(acted, size)
    return found


def path(name: str, size: tuple[int, int]) -> Path:
    return FOLDER / f"{name}-{size[0]}x{size[1]}.txt"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for its_name in SCREENS:
        for its_size in SIZES:
            path(its_name, its_size).write_text(draw(its_name, its_size))
