# SPDX-License-Identifier: Apache-2.0
"""Every key does what the help says."""

from dataclasses import asdict

import pytest
from textual.events import Key

from agent.errors import AgentError
from agent.views.arrange import SORTS, View
from agent.views.top.feed import Missed, Seen
from agent.views.top.keys import BINDINGS
from tests.views.top.fakes import Flow
from tests.views.top.golden import Screen, pressed, shown

HEAD = "skb/s"  # only in the head of the table


def names(screen: Screen) -> list[str]:
    """The first column of the table that is shown."""
    lines = screen.lines
    (at,) = (n for n, line in enumerate(lines) if HEAD in line)
    return [line.split("  ")[0].strip() for line in lines[at + 1 : -1] if line.strip()]


def head(screen: Screen) -> str:
    (line,) = (line for line in screen.lines if HEAD in line)
    return line


def test_sort() -> None:
    async def act(screen: Screen) -> None:
        order = list(SORTS)
        at = order.index("B/s")
        for key, step in (("s", 1), ("greater_than_sign", 1), ("less_than_sign", -1)):
            at += step
            await screen.press(key)
            assert screen.app.view.sort == order[at]
            assert f"▼{order[at]}" in head(screen)
        await screen.press("S")
        assert f"▲{order[at]}" in head(screen)
        for _ in order:
            await screen.press("s")
        assert screen.app.view.sort == order[at]

    shown(act)


def test_sorted_rows() -> None:
    async def act(screen: Screen) -> None:
        for _ in range(4):
            await screen.press("s")
        assert screen.app.view.sort == "name"
        assert names(screen)[0] == "(others)"
        await screen.press("S")
        assert names(screen)[0] == "uplink"

    shown(act)


def test_a_click_on_a_head_sorts() -> None:
    async def act(screen: Screen) -> None:
        x = head(screen).index("limit")
        for arrow in "▼▲":
            await screen.pilot.click("#head", offset=(x, 0))
            await screen.pilot.pause()
            assert f"{arrow}limit" in head(screen)

    shown(act)


def test_clicks_on_a_row() -> None:
    async def act(screen: Screen) -> None:
        await screen.pilot.click("#table", offset=(3, 2))
        await screen.pilot.pause()
        assert screen.app._table.at == 2
        await screen.pilot.click("#table", offset=(3, 2))
        await screen.pilot.pause()
        assert "uplink  IPv4" in screen.text

    shown(act)


def test_family() -> None:
    async def act(screen: Screen) -> None:
        for key, family, count in (
            *(("f", "v4", 9), ("f", "v6", 1), ("f", "", 10)),
            *(("6", "v6", 1), ("4", "v4", 9), ("0", "", 10)),
        ):
            await screen.press(key)
            assert (screen.app.view.family, len(names(screen))) == (family, count)
            assert ("only IP" in screen.text) == bool(family)

    shown(act)


def test_hook() -> None:
    async def act(screen: Screen) -> None:
        for hook, count in (("queue", 1), ("tx", 6), ("rx", 3), ("", 10)):
            await screen.press("h")
            assert (screen.app.view.hook, len(names(screen))) == (hook, count)

    shown(act)


def test_pods_and_devices() -> None:
    async def act(screen: Screen) -> None:
        for count, said in ((3, "only pods"), (7, "only devices"), (10, "10")):
            await screen.press("p")
            assert len(names(screen)) == count
            assert said in screen.text

    shown(act)


def test_others() -> None:
    async def act(screen: Screen) -> None:
        assert "(others)" in names(screen)
        await screen.press("o")
        assert "(others)" not in names(screen)
        assert len(names(screen)) == 11
        await screen.press("o")
        assert "(others)" in names(screen)

    shown(act)


def test_filter() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("slash", "e", "t", "h", "0")  # no family, a digit
        assert screen.lines[-1].startswith("filter: eth0")
        assert set(names(screen)) == {"eth0"}
        await screen.press("q", "backspace")  # is typed, quits nothing
        await screen.press("enter")
        assert screen.lines[-1].startswith("q quit")
        assert "only /eth0" in screen.text
        await screen.press("s")
        assert screen.app.view.text == "eth0"
        await screen.press("escape")
        assert len(names(screen)) == 10
        await screen.press("slash", "x", "escape")
        assert len(names(screen)) == 10

    shown(act)


def test_a_filter_that_comes_all_at_once() -> None:
    """As over a slow line: no letter of it is a key."""

    async def act(screen: Screen) -> None:
        for key in ("slash", "s", "h", "o", "p", "slash", "w"):
            character = {"slash": "/"}.get(key, key if len(key) == 1 else None)
            screen.app.post_message(Key(key, character))
        screen.app.post_message(Key("enter", "\r"))
        for _ in range(200):
            if screen.app.view.text and not screen.app._typing:
                break
            await screen.pilot.pause(0.01)
        assert screen.app.view == View(text="shop/w")

    shown(act)


def test_pause() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("space")
        assert screen.feed.paused
        assert "PAUSED" in screen.lines[0]
        screen.now += 60
        screen.app.draw_header()
        await screen.pilot.pause()
        assert "STALE" not in screen.lines[0]
        await screen.press("space")
        assert "PAUSED" not in screen.lines[0]

    shown(act)


def test_interval_and_seek() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("plus", "equals_sign", "minus", "left", "right")
        assert screen.feed.asked == [
            *("faster -1", "faster -1", "faster 1"),
            *("seek -1 False", "seek 1 False"),
        ]
        screen.feed.asked.clear()
        screen.feed.replay = True
        await screen.press("plus", "minus", "home", "end")
        assert screen.feed.asked == [
            *("faster 1", "faster -1", "seek None False", "seek None True"),
        ]

    shown(act)


@pytest.mark.parametrize("key", ["F", "tab"])
def test_findings(key: str) -> None:
    async def act(screen: Screen) -> None:
        await screen.press(key)
        for text in ("C09 critical (ipv4): uplink cuts", "why: ", "do: ", "which: "):
            assert text in screen.text
        await screen.go(findings=[])  # type: ignore[arg-type]
        assert "No problems found on this node" in screen.text
        await screen.press(key)
        assert HEAD in screen.text

    shown(act)


def test_help() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("question_mark")
        assert "turn the order round" in screen.text
        await screen.press(*["down"] * 9)
        assert "never add up rows" in screen.text
        await screen.press(*["pageup"] * 3)
        assert "Keys" in screen.lines
        await screen.press("question_mark")
        assert HEAD in screen.text

    shown(act)


def test_histogram() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("enter")
        for text in (
            *("eth0  IPv4  the last 1.0 s", "TX  net_dev_start_xmit"),
            *("RX  netif_receive_skb", "64 KiB · above", " 192 KiB ", "57.1 %"),
        ):
            assert text in screen.text
        screen.feed.rows[0].small = 0
        screen.feed.rows[0].big = 24_000
        await screen.go()
        assert "57.1 %" not in screen.text  # it follows
        await screen.press("escape")
        assert HEAD in screen.text

    shown(act, (120, 40))


def test_histogram_of_a_pod() -> None:
    """Its devices have another number than the node's, its name is the same."""

    async def act(screen: Screen) -> None:
        screen.feed.rows.append(
            Flow("lxc1", "pod_receive", scope="pods", cookie=0, ifindex=9, big=70)
        )
        await screen.go(2)
        await screen.press("slash", "w", "e", "b", "enter", "enter")
        assert "shop/web-6f7c9d4b8-x2x7p  IPv4" in screen.text
        assert "RX  pod_receive" in screen.text

    shown(act)


def test_histogram_where_it_is_cut() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("slash", "u", "p", "enter", "down", "enter")
        assert "queued above 64 KiB: 4,614, left whole: 0" in screen.text
        assert "QUEUE  net_dev_queue" in screen.text
        assert "64 KiB · above" in screen.text  # also where nothing is below

    shown(act)


def test_histogram_of_what_is_silent() -> None:
    async def act(screen: Screen) -> None:
        await screen.press("end", "enter")
        assert "dummy0  IPv4  since the agent began to count" in screen.text
        assert "nothing was counted yet" in screen.text

    shown(act)


def test_the_cursor() -> None:
    """It is on the first row until it is moved; then it follows its row, which is
    shown reversed.
    """

    async def act(screen: Screen) -> None:
        table = screen.app._table
        assert table.chosen
        assert table.chosen.name == "eth0"
        (line,) = screen.reversed
        assert line.startswith("eth0            tx ")
        for key, at in (
            ("down", 1),
            ("j", 2),
            ("k", 1),
            ("up", 0),
            ("end", 9),
            ("home", 0),
        ):
            await screen.press(key)
            assert table.at == at
        await screen.press("pagedown")
        assert table.at == 9
        await screen.press("pageup")
        assert table.at == 0
        await screen.press("S")
        assert (table.chosen.name, table.at) == ("eth0", 9)
        assert screen.reversed == [line]
        await screen.press("up")
        (other,) = screen.reversed
        assert other.startswith("eth0            rx ")

    shown(act)


def test_many_rows_are_scrolled() -> None:
    async def act(screen: Screen) -> None:
        screen.feed.rows = [
            Flow(f"lxc{i:03}", ifindex=100 + i, big=1000 - i) for i in range(300)
        ]
        await screen.go(2)
        await screen.press("down", "j")
        assert screen.app._table.at == 2
        await screen.press("end")
        assert names(screen)[-1] == "lxc299"
        assert screen.reversed[0].startswith("lxc299 ")
        await screen.go()
        assert names(screen)[-1] == "lxc299"
        await screen.press("home")
        assert names(screen)[0] == "lxc000"

    shown(act)


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("ctrl+c", 130), ("ctrl+q", 130)])
@pytest.mark.parametrize("before", [("enter",), ("slash",)])
def test_quit(key: str, code: int, before: tuple[str, ...]) -> None:
    if key == "q" and before == ("slash",):
        before = ("slash", "enter")
    screen = shown(pressed(*before, key))
    assert screen.app.return_value == code


def test_an_agent_that_dies_and_comes_back() -> None:
    async def act(screen: Screen) -> None:
        await screen.miss(Missed(AgentError("the agent answers no more", "")), 12)
        assert "STALE 12 s" in screen.lines[0]
        assert "the agent answers no more; trying again" in screen.text
        assert "eth0" in names(screen)  # what was known stays
        screen.feed.seconds = 0
        await screen.go(started=1_764_041_900.0)
        assert "STALE" not in screen.text
        for rates in (" -      -    - ", "  21.0k   969M "):
            eth0 = [line for line in screen.lines if line.startswith("eth0 ")]
            assert any(rates in line for line in eth0)
            await screen.go(started=1_764_041_900.0)

    shown(act)


def test_a_slow_agent_is_stale_without_an_error() -> None:
    async def act(screen: Screen) -> None:
        screen.now += 5
        screen.app.draw_header()
        await screen.pilot.pause()
        assert "STALE 5 s" in screen.lines[0]

    shown(act)


def test_what_makes_it_impossible_to_go_on() -> None:
    error = AgentError("a.jsonl, line 7: this is no JSON", "")

    async def act(screen: Screen) -> None:
        screen.feed.miss(Missed(error, fatal=True))
        await screen.pilot.pause()

    assert shown(act).app.return_value is error


def test_a_jump_forgets_the_trend() -> None:
    async def act(screen: Screen) -> None:
        samples = tuple(screen.feed.sample() for _ in range(2))
        screen.feed.tell(Seen(samples, jumped=True))
        await screen.pilot.pause()
        trends = {row.name: len(row.trend) for row in screen.app.traffic.rows}
        assert trends["uplink"] == 1

    shown(act)


def state(screen: Screen) -> dict[str, object]:
    """All that a key can change."""
    app = screen.app
    return {
        **asdict(app.view),
        "pane": app.pane,
        "at": app._table.at,
        "typing": app._typing,
        "paused": screen.feed.paused,
        "asked": " ".join(screen.feed.asked),
        "ended": app.return_value,
    }


EFFECTS: dict[str, tuple[str, str, object]] = {  # pressed before, what changes, to what
    "q": ("", "ended", 0),
    "ctrl+c": ("", "ended", 130),
    "ctrl+q": ("", "ended", 130),
    "s": ("", "sort", ">64 KiB"),
    "greater_than_sign": ("", "sort", ">64 KiB"),
    "less_than_sign": ("", "sort", "skb/s"),
    "S": ("", "backwards", True),
    "slash": ("", "typing", True),
    "f": ("", "family", "v4"),
    "4": ("", "family", "v4"),
    "6": ("", "family", "v6"),
    "0": ("6", "family", ""),
    "h": ("", "hook", "queue"),
    "p": ("", "kind", "pods"),
    "o": ("", "others", True),
    "space": ("", "paused", True),
    "plus": ("", "asked", "faster -1"),
    "equals_sign": ("", "asked", "faster -1"),
    "minus": ("", "asked", "faster 1"),
    "F": ("", "pane", "findings"),
    "tab": ("", "pane", "findings"),
    "question_mark": ("", "pane", "help"),
    "enter": ("", "pane", "histogram"),
    "escape": ("F", "pane", "traffic"),
    "up": ("down", "at", 0),
    "k": ("down", "at", 0),
    "down": ("", "at", 1),
    "j": ("", "at", 1),
    "pageup": ("pagedown", "at", 0),
    "pagedown": ("", "at", 9),
    "home": ("end", "at", 0),
    "end": ("", "at", 9),
    "left": ("", "asked", "seek -1 False"),
    "right": ("", "asked", "seek 1 False"),
}


@pytest.mark.parametrize("key", EFFECTS)
def test_each_key_changes_one_thing(key: str) -> None:
    first, what, to = EFFECTS[key]
    before, after = {}, {}

    async def act(screen: Screen) -> None:
        await screen.press(*filter(None, [first]))
        before.update(state(screen))
        await screen.press(key)
        after.update(state(screen))

    shown(act)
    assert {at: its for at, its in after.items() if its != before[at]} == {what: to}


def test_no_key_is_without_a_test() -> None:
    bound = [binding.key.split(",") for binding in BINDINGS]  # type: ignore[union-attr]
    # test_terminal.py presses Ctrl-Z, for which a terminal is wanted.
    assert {key for keys in bound for key in keys} == {*EFFECTS, "ctrl+z"}
