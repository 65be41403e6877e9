# SPDX-License-Identifier: Apache-2.0
"""No text is wider than it may be, whatever a machine calls what it has."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.record.measured import read
from agent.snapshot.comparison import BYTES_SENT, Compared, Row, compare
from agent.snapshot.plain import plain, plainly
from agent.snapshot.sample import Sample
from agent.snapshot.schema import SnapshotJson
from agent.typed_json import convert
from agent.views.arrange import View
from agent.views.cells import Columns
from agent.views.check import check_text
from agent.views.comparison import compared_text
from agent.views.lines import top_text
from agent.views.netperf import netperf_text
from agent.views.report import demo_text
from agent.views.top import texts
from agent.views.top.header import Status, header
from agent.views.top.histogram import histogram_lines
from agent.views.top.spans import Spans
from agent.views.traffic import Traffic
from agent.views.width import beside, columns, cut, left, right, shorten, table, wrap
from tests.record.fakes import record
from tests.views.test_report import CUT, OFF, ON, demo
from tests.views.top.fakes import FINDING, QUEUE, RX, TX, Flow, picture

NAMES = {
    "short": "eth0",
    "CPU": "Intel(R) Xeon(R) Processor",
    "long CPU": "AMD Ryzen Threadripper PRO 7995WX 96-Cores with Radeon Graphics" * 2,
    "device": "enp129s0f1np123",
    "host": f"node-{'0123456789' * 6}"[:63],
    "pod": f"{'n' * 63}/{'web-' * 63}x",
    "version": "1.20.2-dev+g0123456789abcdef0123456789abcdef01234567-dirty",
    "wide": "機械の名前" * 20,
    "wide words": "機械 の 名前 " * 20,
    "combining": "e\N{COMBINING ACUTE ACCENT}" * 100,
    "hyphens": "ip-10-0-0-1-" * 20,
    "spaces": "  a  " * 40,
    "controls": "\x1b[31m\r\n\N{RIGHT-TO-LEFT OVERRIDE}" * 20,
    "empty": "",
}
named = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
URL = f"http://{'a' * 63}.example:19715/{'b' * 80}"
# A word that begins with a slash is copied.
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/")).map(
    plain
)


def fits(lines: Iterable[str], width: int = 80) -> None:
    for line in lines:
        assert columns(line.rstrip()) <= width, line


def world(name: str) -> dict[str, Any]:
    """What an agent says, with everything that has a name called so."""
    rows = [
        Flow(name, hook, scope=scope, small=100, big=100, cookie=at, ifindex=at, peer=9)
        for at, scope in enumerate(("node", "pods"), 7)
        for hook in (TX, RX, QUEUE, name)
    ]
    sizes = ("gso_max", "gro_max", "gso_ipv4_max", "gro_ipv4_max", "tso_max")
    found = picture(
        3,
        rows,
        node=name,
        kernel=name,
        recent={"seconds": 3.0},
        devices=[
            {
                "name": name,
                "ifindex": 2,
                "kind": name,
                "sizes": dict.fromkeys(sizes, 196608),
            }
        ],
        pods=[{"name": name, "ifindex": 9, "interface": "lxc1"}],
        sources={name: {"up": False, "errors": 1, "problem": name, "answered": 1.0}},
        attached={},
        unrecorded={name: 7},
        unknown_pods=[name],
    )
    found["cilium"] = {**found["cilium"], "version": name}
    for family in found["families"].values():
        family |= {"state": name, "reason": f"cut at {name} and {name}"}
    said = {"seen": f"{name} cuts", "why": name, "remedy": f"raise that of {name}"}
    found["findings"] = [{**FINDING, **said, "subjects": [name, name]}]
    plainly_told: dict[str, Any] = plainly(found)
    return plainly_told


def watched(name: str) -> tuple[Traffic, Sample]:
    """Two samples of it."""
    traffic = Traffic()
    told = world(name)
    after = {**told, "taken": told["taken"] + 1, "uptime": 4.0, "counters": []}
    for row in told["counters"]:
        more = {"slots": [2 * each for each in row["slots"]]}
        more |= {each: 2 * row[each] for each in ("bytes", "big_bytes", "segments")}
        after["counters"].append({**row, **more})
    traffic.take(Sample.of(told))
    sample = Sample.of(after)
    traffic.take(sample)
    return traffic, sample


# What is wider than a line stays whole only where it is copied.


@given(WORDS, st.integers(10, 120), st.integers(0, 6), st.integers(0, 6))
def test_wrapped_lines_fit_and_nothing_is_lost(
    text: str, width: int, first: int, then: int
) -> None:
    lines = wrap(text, width, first=" " * first, then=" " * then)
    fits(lines, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(line.strip() for line in lines)


@given(WORDS, st.integers(0, 60))
def test_what_is_shortened_fits_and_says_so(text: str, width: int) -> None:
    for found in (cut(text, width), shorten(text, width)):
        assert columns(found) <= width
        assert found == text or width < 3 or "…" in found
    assert columns(left(shorten(text, width), width)) == width
    assert columns(right(shorten(text, width), width)) == width


def test_the_middle_of_a_name_is_left_out() -> None:
    assert shorten("shop/web-6f7c9d4b8-x2x7p", 11) == "shop/…x2x7p"
    assert shorten("abcdef", 2) == "ab"
    assert cut("a sentence", 5) == "a se…"


def test_what_is_copied_stays_whole() -> None:
    assert wrap(f"no answer from {URL} within 3 s") == [
        "no answer from",
        URL,
        "within 3 s",
    ]
    assert wrap("see " + "x" * 100)[1:] == ["x" * 80, "x" * 20]
    assert beside("as seen by", URL) == ["as seen by", URL]
    assert beside("as seen by", "our own probes") == ["as seen by our own probes"]


def test_of_a_table_names_are_shortened_and_numbers_are_not() -> None:
    rows = [["", "kind", "bytes"], ["p" * 300, "k" * 40, "1,234,567,890"]]
    head, row = table(rows, names=(0, 1))
    assert columns(row) == 80
    name, kind, number = row.split("  ")
    assert (name[:3], name.count("…"), kind) == ("ppp", 1, "k" * 15 + "…" + "k" * 16)
    assert number == "1,234,567,890"
    assert head.endswith("bytes")
    assert table(rows, 20)[1].endswith(f"  {'k' * 40}  1,234,567,890")


# Each text.


@named
def test_netperf(name: str) -> None:
    its = record(name, [65_000.0, 66_000.0], 50)
    assert its.node
    node = replace(its.node, states={"ipv4": name}, findings=(name,))
    its = replace(its, machine=name, kernel=name, server=name, node=node)
    text = netperf_text(its)
    fits(text.splitlines())
    told = "".join(text.split())
    assert told.startswith(
        "".join(f"netperfTCP_RR80000:80000to{name},from{name},Linux{name};".split())
    )


def test_netperf_on_the_machine_of_a_cloud() -> None:
    its = record("on", [65_000.0], 50)
    machine = f"{NAMES['CPU']}, 2 CPUs"
    its = replace(its, machine=machine, kernel="6.1.0-18-cloud-amd64")
    lines = netperf_text(its).splitlines()
    assert lines[0].endswith(" 192.0.2.2:12865, from Intel(R) Xeon(R) Processor,")
    assert lines[1].startswith("2 CPUs, Linux 6.1.0-18-cloud-amd64; medians of 1 ")
    assert lines[2] == ""


@named
def test_demo(name: str) -> None:
    its = replace(demo(OFF, CUT, ON), machine=name, kernel=name, device=name)
    fits(demo_text(its).splitlines())


@named
def test_compare(name: str, tmp_path: Path) -> None:
    paths = []
    for at, rates in (("a", [100.0, 101.0, 102.0]), ("b", [0.1, 0.2, 0.3])):
        its = replace(record(name or at, rates, 50), machine=name, kernel=name)
        path = tmp_path / f"{at}.json"
        path.write_text(its.json())
        paths.append(path)
    compared = compare(*(read(str(path)) for path in paths))
    (ipv4,) = compared.rows
    compared = replace(compared, notes=(name, f"{name}: {name}"))
    lines = compared_text(compared).splitlines()
    fits(line for line in lines if str(tmp_path) not in line)
    for path in paths:
        assert sum(f"({path})" in line for line in lines) == 1
    assert any(line.startswith(ipv4) for line in lines)


@pytest.mark.parametrize("had", [0.0, 1.0, 1.25e9])
def test_compare_of_a_fast_network(had: float, tmp_path: Path) -> None:
    """400 Gbit/s of a record of top, once against nothing."""
    path = tmp_path / "a.json"
    path.write_text(record("a", [100.0], 50).json())
    its = read(str(path))
    row = Row.of(BYTES_SENT, (had, had, had), (5e10, 5.0123e10, 4.9e10))
    same = Row.of(BYTES_SENT, (5e10, 5e10, 5e10), (5e10, 5e10, 5e10))
    lines = compared_text(Compared(its, its, {"ipv4": (row, same)}, ())).splitlines()
    fits(line for line in lines if str(path) not in line)
    assert lines[-2].split()[:2] == ["bytes/s", "sent"]
    assert "  50 G  " in lines[-2]
    assert lines[-1].endswith("no difference")


@named
def test_check(name: str) -> None:
    text = check_text(convert(world(name), SnapshotJson), URL)
    fits(line for line in text.splitlines() if line != URL)
    assert URL in text.splitlines()
    assert "196,608  196,608" in text


@named
def test_top_without_a_terminal(name: str) -> None:
    traffic, sample = watched(name)
    assert traffic.sample
    period = sample.since(Sample.of(world(name)))
    lines = top_text(sample, period, URL).splitlines()
    fits((line for line in lines if line != URL), 120)
    assert URL in lines
    assert sum("80,000" in line for line in lines) == 8


@pytest.mark.parametrize("width", [60, 80, 97, 200])
@named
def test_top_on_a_terminal(name: str, width: int) -> None:
    traffic, sample = watched(name)
    told = plain(name)
    drawn: list[Spans] = []
    for status in (
        Status(told, told, notice=told, age=9.0, stale=True, paused=True, replay=True),
        Status(told, told, problem=told),
    ):
        for reasons in (False, True):
            drawn += header(sample.snapshot, status, width, reasons=reasons)
            drawn += header(None, status, width, reasons=reasons)
    for replay in (False, True):
        drawn += texts.help_lines(width, replay=replay)
        drawn.append(texts.footer("traffic", width, replay=replay))
    drawn += texts.findings_lines(sample.snapshot, width)
    drawn.append(texts.tabs("traffic", 8, 1, str(View(text=told)), width))
    for row in traffic.rows:
        lines = histogram_lines(traffic.rows, row, 1.0, (width, 40))
        assert "the last 1.0 s" in lines[0][-1][0]
        drawn += lines
    fits(("".join(text for text, _ in spans) for spans in drawn), width)
    table = Columns.of(width, traffic.rows)
    for row in traffic.rows:
        cells = table.cells(row)
        assert {at: columns(cell) for at, cell in cells.items()} == table.widths
