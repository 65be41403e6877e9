# SPDX-License-Identifier: Apache-2.0
"""Two measurements compared, as one HTML page that needs nothing else."""

from functools import partial
from html import escape
from statistics import median

from agent import __version__
from agent.snapshot.comparison import (
    LATENCIES,
    THROUGHPUT,
    Compared,
    Facts,
    Row,
    Unit,
    Verdict,
)
from agent.snapshot.histogram import Histogram
from agent.views.comparison import amount, difference, label
from agent.views.drawing import Dots, bars, dots, slots_to_show

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --quiet: #59636e; --line: #d1d9e0;
  --page: #fff; --a: #a04100; --b: #0757ba; --small: #8c959f; --big: #1a7f37;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --quiet: #9da7b3;
  --line: #3d444d; --page: #0d1117; --a: #ffa657; --b: #79c0ff; --small: #8b949e;
  --big: #56d364; --bad: #ff8f85; } }
body { color: var(--text); background: var(--page); max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin-bottom: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; }
th:first-child, .about td, .about th { text-align: left; }
td { white-space: nowrap; }
.about td { overflow-wrap: anywhere; white-space: normal; }
h1 { overflow-wrap: anywhere; }
.about .differs { font-weight: 600; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; }
.pair > figure { flex: 1 1 20rem; }
figure { margin: .5rem 0; } figcaption { color: var(--quiet); }
svg { width: 100%; height: auto; font-size: 13px; font-variant-numeric: tabular-nums; }
svg text { fill: var(--text); } svg .end, svg .marked { text-anchor: end; }
svg .middle { text-anchor: middle; fill: var(--quiet); }
svg .marked { fill: var(--quiet); font-size: 11px; }
svg .mark { stroke: var(--quiet); stroke-dasharray: 4 3; }
svg .grid { stroke: var(--line); } svg .dot { fill-opacity: .45; }
.small { fill: var(--small); } .big { fill: var(--big); }
svg .a { fill: var(--a); } svg .b { fill: var(--b); }
b.a { color: var(--a); } b.b { color: var(--b); }
.better { color: var(--big); font-weight: 600; }
.worse { color: var(--bad); font-weight: 600; }
footer { color: var(--quiet); margin-top: 2.5rem; }
"""
_CLASSES = {Verdict.BETTER: "better", Verdict.WORSE: "worse"}
_FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6"}


def compared_html(compared: Compared) -> str:
    """The whole document. No script, nothing fetched; light or dark as the reader
    likes it.
    """
    a, b = escape(compared.a.name), escape(compared.b.name)
    sections = [
        _section(compared, family, rows) for family, rows in compared.rows.items()
    ]
    notes = "".join(f"<p>Note: {escape(note)}</p>\n" for note in compared.notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'">
<title>{b} against {a}</title>
<style>{_STYLE}</style></head>
<body>
<h1><b class="b">{b}</b> against <b class="a">{a}</b></h1>
{notes}{"".join(sections)}
<h2>What was measured where</h2>
{_about(compared)}
<footer><p>Medians of all runs. The interval holds the difference of the medians with
95&nbsp;% confidence (percentile bootstrap). Better or worse is what leaves out 0, can
be measured (netperf counts whole microseconds) and has 3 runs or more. The longest skb
is not judged: some are exact, others the edge of a slot.
Made by bigtcp-agent {escape(__version__)}.</p></footer>
</body></html>
"""


def _section(compared: Compared, family: str, rows: tuple[Row, ...]) -> str:
    name = _FAMILIES.get(family, family)
    a, b = compared.a.families[family], compared.b.families[family]
    parts = [
        f"<h2>{escape(name)}</h2>",
        _table(compared, rows),
        *(_histograms(compared, a, b, direction) for direction in ("sent", "received")),
    ]
    for title, metrics in (
        ("Throughput, run by run", THROUGHPUT),
        ("Latency, run by run", tuple(LATENCIES.values())),
    ):
        drawn = [row for row in rows if row.metric in metrics]
        if drawn:
            parts.append(_dots(f"{name}: {title}", title, drawn))
    return "\n".join(part for part in parts if part)


def _table(compared: Compared, rows: tuple[Row, ...]) -> str:
    lines = []
    for row in rows:
        unit, verdict = row.metric.unit, row.verdict
        told, between = difference(row)
        cells = [
            amount(median(row.a), unit),
            amount(median(row.b), unit),
            told,
            between,
        ]
        lines.append(
            f"<tr><th>{escape(label(row))}</th>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + f'<td class="{_CLASSES.get(verdict, "")}">{escape(verdict)}</td></tr>'
        )
    heads = ["", compared.a.name, compared.b.name, "difference", "95 % interval", ""]
    return (
        '<div class="scroll"><table><thead><tr>'
        + "".join(f"<th>{escape(head)}</th>" for head in heads)
        + "</tr></thead>\n<tbody>"
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def _histograms(compared: Compared, a: Facts, b: Facts, direction: str) -> str:
    if direction not in a.histograms or direction not in b.histograms:
        return ""
    both = (a.histograms[direction], b.histograms[direction])
    edges = tuple(edge for edge in both[0].edges if edge in both[1].edges)
    coarse: list[Histogram] = [histogram.coarser(edges) for histogram in both]
    slots = slots_to_show(coarse)
    figures = []
    for kind, name, histogram in zip(
        "ab", (compared.a.name, compared.b.name), coarse, strict=True
    ):
        about = f"{name}: lengths of the skbs that were {direction}"
        figures.append(
            f'<figure><figcaption><b class="{kind}">{escape(name)}</b></figcaption>\n'
            f"{bars(histogram, slots, about)}</figure>"
        )
    return (
        f"<h3>Lengths of the skbs that were {direction}, share of their number</h3>\n"
        f'<div class="pair">{"".join(figures)}</div>'
    )


def _dots(about: str, title: str, rows: list[Row]) -> str:
    chart = [Dots(label(row), row.a, row.b) for row in rows]
    tell = partial(_tick, unit=rows[0].metric.unit)
    return f"<h3>{escape(title)}</h3>\n<figure>{dots(chart, tell, about)}</figure>"


def _tick(value: float, unit: Unit) -> str:
    return amount(value, unit).replace(".0 ", " ")


def _about(compared: Compared) -> str:
    a, b = compared.a, compared.b
    lines = []
    for what in dict.fromkeys((*a.about, *b.about)):
        cells = [side.about.get(what, "-") for side in (a, b)]
        differs = ' class="differs"' if cells[0] != cells[1] else ""
        lines.append(
            f"<tr{differs}><th>{escape(what)}</th>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    heads = "".join(f"<th>{escape(side.name)}</th>" for side in (a, b))
    return (
        f'<div class="scroll"><table class="about"><thead><tr><th></th>{heads}</tr>'
        "</thead>\n<tbody>" + "\n".join(lines) + "</tbody></table></div>"
    )
