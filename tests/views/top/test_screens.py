# SPDX-License-Identifier: Apache-2.0
"""Screens are as they were; `python -m tests.views.top.golden` writes them anew."""

import pytest
from textual.color import Color

from agent.views.top.app import LEAST_HEIGHT, LEAST_WIDTH
from tests.views.top.golden import SCREENS, SIZES, Screen, draw, path, pressed, shown


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str, size: tuple[int, int]) -> None:
    assert draw(name, size) == path(name, size).read_text()


def test_there_is_no_screen_without_a_test() -> None:
    known = {path(name, size) for name in SCREENS for size in SIZES}
    assert set(path("x", (1, 1)).parent.iterdir()) == known


@pytest.mark.parametrize("size", [(59, 24), (80, 14), (20, 5), (1, 1)])
def test_a_terminal_that_is_too_small_says_so(size: tuple[int, int]) -> None:
    async def act(screen: Screen) -> None:
        await screen.press("enter", "F", "s", "slash", "x", "escape", "question_mark")
        said = "".join(screen.lines)
        whole = f"This terminal is {size[0]}x{size[1]}: too small, it needs 60x15."
        assert said == whole[: size[0] * size[1]]
        await screen.pilot.resize_terminal(LEAST_WIDTH, LEAST_HEIGHT)
        await screen.press("escape", "escape")
        assert "Traffic 10" in screen.text

    shown(act, size)


PANES = {
    "escape": "dummy0 ",
    "enter": "nothing was counted yet",
    "F": "which: uplink",
    "question_mark": "turn the order round",
}


@pytest.mark.parametrize("size", [(LEAST_WIDTH, LEAST_HEIGHT), (60, 40), (120, 40)])
@pytest.mark.parametrize("key", PANES)
def test_what_matters_is_seen(size: tuple[int, int], key: str) -> None:
    async def act(screen: Screen) -> None:
        await screen.press("end", key)
        assert screen.lines[0].startswith("node1  Linux 6.18.44")
        assert screen.lines[-1].startswith("q quit ? help ")
        assert PANES[key] in screen.text

    shown(act, size)


@pytest.mark.parametrize(
    ("replay", "pace"), [(False, "+- interval"), (True, "←→ seek +- speed")]
)
def test_every_key_that_must_be_in_the_footer_is(replay: bool, pace: str) -> None:
    """At 80 columns."""

    async def act(screen: Screen) -> None:
        screen.feed.replay = replay
        await screen.go()
        keys = "q quit ? help s sort / filter f IP h hook p pods space pause"
        assert screen.lines[-1] == f"{keys} {pace}"
        assert "F Findings 1   ↵ Histogram" in screen.text

    shown(act)


def test_a_mark_that_has_no_line_of_its_own() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("enter")
        (mark,) = (line for line in screen.lines if line.startswith("   64 KiB"))
        assert mark.endswith("  ·······················  ·······················")

    shown(act, (60, 15))


def test_before_the_first_sample() -> None:
    async def act(screen: Screen) -> None:
        screen.app.traffic.forget()
        screen.app.draw()
        await screen.press("enter", "F", "s", "down", "p")
        assert screen.lines[0].startswith("bigtcp-agent top")
        await screen.press("escape")
        assert "no row" in screen.text

    shown(act)


def test_only_what_changed_is_drawn_again() -> None:
    """A sample in which a single row differs writes that row and the clock."""

    async def act(screen: Screen) -> None:
        drawn: list[tuple[str | None, int]] = []
        for line in screen.app.query("Lines, Head, Table"):

            def noted(y: int, its: object = line) -> object:
                drawn.append((its.id, y))  # type: ignore[attr-defined]
                return type(its).render_line(its, y)  # type: ignore[attr-defined]

            line.render_line = noted  # type: ignore[method-assign,assignment]
        await screen.go(60)  # trends are full
        drawn.clear()
        screen.feed.rows[0].small += 1000
        await screen.go()
        assert {name for name, _ in drawn} == {"header", "table"}
        assert {y for name, y in drawn if name == "table"} == {0}

    shown(act)


def test_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def act(screen: Screen) -> None:
        strips = screen.app.screen._compositor.render_strips()
        black = Color(0, 0, 0)
        for strip in strips:
            seen = strip
            for each in screen.app._filters:
                seen = seen.apply_filter(each, black)
            for segment in seen:
                style = segment.style
                assert style is not None
                for color in (style.color, style.bgcolor):
                    assert color is None or color.is_default

    for keys in ((), ("enter",), ("F",), ("question_mark",), ("slash", "e")):

        async def press_and_look(screen: Screen, keys: tuple[str, ...] = keys) -> None:
            await pressed(*keys)(screen)
            await act(screen)

        shown(press_and_look)
