# SPDX-License-Identifier: Apache-2.0
"""Rows from sample to sample: rates, sums, trends; which are shown, in which order."""

from dataclasses import replace

import pytest

from agent.snapshot.sample import Sample
from agent.views import cells
from agent.views.arrange import SORTS, View
from agent.views.cells import Columns
from agent.views.traffic import TREND, Row, Traffic
from tests.views.top.fakes import BEGAN, QUEUE, RX, Flow, flows, picture


def after(*times: float, rows: list[Flow] | None = None) -> Traffic:
    traffic = Traffic()
    for seconds in times:
        traffic.take(Sample.of(picture(seconds, rows or flows())))
    return traffic


def row(traffic: Traffic, name: str, hook: str = "tx", family: str = "v4") -> Row:
    (found,) = (
        row
        for row in traffic.rows
        if (row.name, row.hook, row.family) == (name, hook, family)
    )
    return found


def test_the_first_sample_has_no_rates() -> None:
    eth0 = row(after(100), "eth0")
    assert (eth0.skbs, eth0.bytes, eth0.share, eth0.packets) == (None,) * 4
    assert (eth0.trend, eth0.longest, eth0.limit) == ((), 80_000, 196_608)


def test_rates() -> None:
    traffic = after(100, 102)
    eth0 = row(traffic, "eth0")
    assert traffic.seconds == 2
    assert eth0.skbs == 21_000
    assert eth0.bytes == 9_000 * 1000 + 12_000 * 80_000
    assert eth0.share == pytest.approx(960 / 969)
    assert eth0.packets == pytest.approx((9_000 + 56 * 12_000) / 21_000)
    assert row(traffic, "shop/web-6f7c9d4b8-x2x7p").share == 1


def test_a_sample_of_the_same_moment_has_no_rates() -> None:
    assert row(after(100, 100), "eth0").skbs is None


def test_an_agent_that_was_restarted_has_no_absurd_rate() -> None:
    """Its counters are older than it is: those of 7 s at an age of 0.1 s."""
    traffic = after(100, 101)
    trend = row(traffic, "eth0").trend
    for uptime, skbs in ((0.1, None), (1.1, 21_000)):
        told = picture(uptime + 7, flows(), started=BEGAN + 110, uptime=uptime)
        traffic.take(Sample.of(told))
        eth0 = row(traffic, "eth0")
        assert eth0.skbs == (skbs and pytest.approx(skbs))
        assert eth0.share == (skbs and pytest.approx(960 / 969))
    assert eth0.trend[: len(trend)] == trend
    assert len(eth0.trend) == len(trend) + 1


def test_what_is_queued_has_no_share() -> None:
    """The hook counts the big ones only: it would always be all of them."""
    uplink = row(after(1, 2), "uplink", "queue")
    assert (uplink.skbs, uplink.share, uplink.trend) == (4614, None, (None,))


def test_others_are_summed() -> None:
    others = row(after(1, 2), "(others)", "rx")
    assert (others.skbs, others.limit, others.summed) == (30, 196_608, True)
    rows = [replace(each, limit=each.cookie * 1024) for each in flows()]
    assert row(after(1, 2, rows=rows), "(others)", "rx").limit == 0


def test_trends() -> None:
    times = [1 + second for second in range(TREND + 5)]
    assert row(after(*times), "eth0", family="v6").trend == (1.0,) * TREND
    assert row(after(*times), "dummy0").trend == (None,) * TREND


@pytest.mark.parametrize("jump", [0, 86400, -86400])
def test_how_long_a_row_has_been_silent(jump: int) -> None:
    """By the agent's clock, whatever the node's wall clock does meanwhile."""
    traffic = after(1, 2)
    quiet = [replace(each, small=0, big=0) for each in flows()]
    for seconds in (3, 4):
        told = picture(seconds, quiet)
        for its, before in zip(
            told["counters"], picture(2, flows())["counters"], strict=True
        ):
            counted = ("slots", "bytes", "big_bytes", "segments")
            its.update({at: before[at] for at in counted})
        told["taken"] += jump
        traffic.take(Sample.of(told))
    assert row(traffic, "eth0").silent == 2
    assert row(after(1, 2), "eth0").silent == 0


def test_a_row_that_is_gone_is_forgotten() -> None:
    traffic = after(1, 2)
    traffic.take(Sample.of(picture(3, [])))
    assert (traffic.rows, traffic._trends, traffic._active) == ((), {}, {})


def test_a_name_that_a_terminal_would_obey() -> None:
    traffic = after(1, 2, rows=[Flow("e\x1b[31m\u4f60")])
    assert [row.name for row in traffic.rows] == ["e?[31m?"]


def names(view: View, traffic: Traffic) -> list[str]:
    return [f"{row.name} {row.hook}" for row in view.arranged(traffic.rows)]


def test_which_rows_are_shown() -> None:
    traffic = after(1, 2)
    assert "(others) rx" in names(View(), traffic)
    assert "eth1 (netns 4026530030) rx" in names(View(others=True), traffic)
    assert "(others) rx" not in names(View(others=True), traffic)
    assert names(View(text="WEB"), traffic) == [
        "shop/web-6f7c9d4b8-x2x7p tx",
        "shop/web-6f7c9d4b8-x2x7p rx",
    ]
    assert names(View(family="v6"), traffic) == ["eth0 tx"]
    assert names(View(hook="queue"), traffic) == ["uplink queue"]
    assert len(names(View(kind="pods"), traffic)) == 3
    assert len(names(View(kind="devices"), traffic)) == 7


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("backwards", [False, True])
def test_every_order(sort: str, backwards: bool) -> None:
    """What has no value is last, whichever way round."""
    traffic = after(1, 2)
    rows = View(sort=sort, backwards=backwards).arranged(traffic.rows)
    values = [SORTS[sort](row) for row in rows]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known
    first = sorted(known)
    text = sort in ("name", "hook", "IP")
    assert known == (first if text != backwards else first[::-1])


def test_hooks_in_turns() -> None:
    view, traffic, seen = View(), after(1, 2), []
    for _ in range(4):
        view = view.next_hook(traffic.rows)
        seen.append(view.hook)
    assert seen == ["queue", "tx", "rx", ""]


def test_a_hook_that_is_gone() -> None:
    assert View(hook="gro").next_hook([]).hook == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (0, "0"), (7.4, "7"), (999, "999"), (999.6, "1.00k")),
        *((1000, "1.00k"), (45_678, "45.7k"), (123_456, "123k"), (999_950, "1.00M")),
        *((98.24e9, "98.2G"), (1e12, "1.00T"), (1e18, "1000P"), (99.96e3, "100k")),
    ],
)
def test_si(value: float | None, text: str) -> None:
    assert cells.si(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0, "0%"), (1e-9, "<1%"), (0.5, "50%"), (0.999, "99%"), (1, "100%")],
)
def test_percent(share: float | None, text: str) -> None:
    assert cells.percent(share) == text


def test_spark() -> None:
    shares = [None, 0.0, 0.001, 0.5, 0.99, 1.0]
    assert cells.spark(shares, 7) == "  ▁▂▅██"
    assert cells.spark(shares, 2) == "██"
    assert cells.spark(shares, 0) == ""


def test_limit() -> None:
    sizes = (0, 65536, 196608, 524280)
    assert [cells.limit(size) for size in sizes] == ["-", "64K", "192K", "524280"]


@pytest.mark.parametrize("width", range(30, 260, 7))
def test_a_table_is_never_wider_than_the_screen(width: int) -> None:
    rows = after(*range(1, 90)).rows
    columns = Columns.of(width, rows)
    for row in rows:
        told = columns.cells(row)
        assert [len(text) for text in told.values()] == list(columns.widths.values())
        if width >= 60:
            assert len(" ".join(told.values())) <= width
    if width >= 80:
        assert list(columns.widths) == [*SORTS, "trend"]


def test_rx_and_queue_are_called_what_they_are() -> None:
    rows = [Flow("eth0", hook, big=1) for hook in (RX, QUEUE, "pod_receive", "new")]
    hooks = [row.hook for row in after(1, 2, rows=rows).rows]
    assert hooks == ["rx", "queue", "pod rx", "new"]
