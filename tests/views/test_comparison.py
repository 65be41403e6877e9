# SPDX-License-Identifier: Apache-2.0
"""Two records compared, as text, as JSON and as a page."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agent.record.measured import read
from agent.record.netperf import Record
from agent.snapshot.comparison import Compared, compare
from agent.snapshot.histogram import Histogram
from agent.views.comparison import compared_json, compared_text
from agent.views.drawing import Dots, bars, dots, slots_to_show
from agent.views.page import compared_html
from tests.record.fakes import record

SLOW = [100.0, 101.0, 102.0, 103.0]
FAST = [130.0, 132.0, 131.0, 133.0]
HOSTILE = "<script>alert(1)</script>\"'&"
# Elements of HTML and SVG that have no end tag.
VOID = {"meta", "line", "rect", "circle"}


def compared(folder: Path, a: Record, b: Record) -> Compared:
    for name, each in (("a", a), ("b", b)):
        (folder / f"{name}.json").write_text(each.json())
    return compare(read(str(folder / "a.json")), read(str(folder / "b.json")))


@pytest.fixture
def better(tmp_path: Path) -> Compared:
    return compared(tmp_path, record("off", SLOW, 0), record("on", FAST, 50, p50=15))


def test_text(better: Compared) -> None:
    lines = compared_text(better).splitlines()
    assert max(map(len, lines[-9:])) <= 80
    cells = {line[:15].strip(): line[15:].split() for line in lines if line}
    assert cells["transactions/s"][:4] == ["102", "132", "+29.6", "%"]
    assert cells["transactions/s"][-1] == "better"
    assert cells["latency p50"][:6] == ["20.0", "µs", "15.0", "µs", "-25.0", "%"]
    assert cells["latency p50"][-1] == "better"
    assert cells["above 64 KiB"][:6] == [*("0.0", "%", "99.0", "%", "+99.0", "pts")]
    assert cells["longest skb"][:6] == ["1,000", "B", "100,000", "B", "+9,900", "%"]


def test_text_of_what_is_no_difference(tmp_path: Path) -> None:
    a, b = record("a" * 11, SLOW, 0), record("b", [103.0, 100.0, 99.0], 0)
    lines = compared_text(compared(tmp_path, a, b)).splitlines()
    assert max(map(len, lines[-9:])) <= 80
    assert lines[-9].split()[:3] == ["ipv4", "A", "B"]
    assert lines[-8].endswith("no difference")
    few = record("b", SLOW[:2], 0)
    text = compared_text(compared(tmp_path, a, few))
    assert "too few runs" in text
    assert "better" not in text


def test_json(better: Compared) -> None:
    told = json.loads(compared_json(better))
    assert told["schema"] == "bigtcp.compare/v1"
    assert (told["a"]["name"], told["b"]["name"]) == ("off", "on")
    first = told["families"]["ipv4"][0]
    assert first["metric"] == "transactions_per_second"
    assert first["a"] == {"median": 101.5, "runs": SLOW}
    assert first["absolute"]["difference"] == 30
    assert first["percent"]["difference"] == pytest.approx(100 * 30 / 101.5)
    assert first["verdict"] == "better"
    assert {row["metric"] for row in told["families"]["ipv4"]} >= {
        *("p50_latency_us", "p90_latency_us", "p99_latency_us", "mean_latency_us"),
        *("big_bytes_share", "segments_per_skb", "longest_bytes"),
    }


class Page(HTMLParser):
    """Its text, tags and attributes; an error where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else(better: Compared) -> None:
    text = compared_html(better)
    page = Page(text)
    assert "script" not in page.tags
    assert not page.attributes & {"src", "href", "xlink:href", "onload", "onclick"}
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in text
    assert page.tags.count("svg") == 4  # two histograms, throughput, latency
    for said in ("64 KiB · above", "192 KiB", "+29.6 %", "better", "A CPU, 2 CPUs"):
        assert said in page.text, said


def test_what_a_record_says_is_text(tmp_path: Path) -> None:
    hostile = replace(
        record(HOSTILE, SLOW, 50), machine=HOSTILE, server=HOSTILE, kernel=HOSTILE
    )
    page = Page(compared_html(compared(tmp_path, hostile, record("b", FAST, 0))))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 5
    long = replace(hostile, name="x" * 500)
    lines = compared_text(compared(tmp_path, long, hostile)).splitlines()
    assert max(len(line) for line in lines[-9:]) <= 80


def test_a_page_without_histograms(tmp_path: Path) -> None:
    a, b = record("a", SLOW, 0, seen=False), record("b", FAST, 50)
    page = Page(compared_html(compared(tmp_path, a, b)))
    assert page.tags.count("svg") == 2
    assert "above 64 KiB" not in page.text


def test_edges_that_differ_are_drawn_as_far_as_both_have_them(tmp_path: Path) -> None:
    other = record("b", FAST, 50)
    series = other.families["ipv4"]
    runs = tuple(
        replace(run, sent=replace(run.sent, slots=(50, 0, 0, 50, 0)))
        for run in series.runs
        if run.sent
    )
    other = replace(
        other,
        edges=(1500, 9000, 65536, 131072),
        families={"ipv4": replace(series, runs=runs)},
    )
    found = compared(tmp_path, record("a", SLOW, 50), other)
    assert "lengths: other edges, drawn as far as both have them" in found.notes
    page = Page(compared_html(found))
    assert "9,000 B" not in page.text
    assert "64 KiB · above" in page.text


def test_drawings_of_little() -> None:
    empty = Histogram.empty((1500, 65536))
    assert slots_to_show([empty]) == range(0)
    assert "<rect" not in bars(empty, slots_to_show([empty]), "nothing")
    assert dots([Dots("zero", [0.0], [0.0])], str, "zeros").count("<circle") == 2
    many = dots([Dots("many", [float(n) for n in range(5000)], [1.0])], str, "many")
    assert many.count("<circle") == 101
