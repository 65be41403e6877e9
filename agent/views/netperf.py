# SPDX-License-Identifier: Apache-2.0
"""Text of a record of netperf."""

from collections.abc import Callable
from statistics import median

from agent.record.netperf import Record, Run, Series
from agent.snapshot.model import Lengths
from agent.views.report import histograms, percent
from agent.views.width import table, wrap


def netperf_text(record: Record) -> str:
    """The record for people, in WIDTH columns, without a trailing newline."""
    test = record.test
    pinned = "" if test.cpu is None else f", on CPU {test.cpu}"
    runs = f"medians of {record.runs} runs of {test.seconds} s{pinned}"
    lines = [
        *wrap(
            f"netperf {test} to {record.server}, from {record.machine}, "
            f"Linux {record.kernel}; {runs}"
        ),
        "",
        *_results(record),
    ]
    for family, series in record.families.items():
        seen = {
            f"{family}, {direction}": lengths.histogram
            for direction in ("sent", "received")
            if (lengths := _lengths(record, series, direction))
        }
        if seen:
            lines += ["", *histograms(seen)]
    if record.node:
        told = ", ".join(
            f"{family} {its}" for family, its in record.node.states.items()
        )
        found = " ".join(record.node.findings)
        said = f"The node's verdict: {told}" + (f"; {found}" if found else "")
        lines += ["", *wrap(said)]
    return "\n".join(lines)


def _lengths(record: Record, series: Series, direction: str) -> Lengths | None:
    """Of all runs that were seen; None where none was."""
    total = None
    for run in series.runs:
        counted = run.sent if direction == "sent" else run.received
        if counted:
            lengths = counted.lengths(record.edges)
            total = total.add(lengths) if total else lengths
    return total


def _results(record: Record) -> list[str]:
    """A column for each family."""
    every = list(record.families.values())

    def row(label: str, tell: Callable[[tuple[Run, ...]], str]) -> list[str]:
        return [label, *(tell(series.runs) for series in every)]

    def latency(label: str, at: str, over: Callable[[list[float]], float]) -> list[str]:
        return row(
            label,
            lambda runs: (
                f"{over([getattr(run.latency_us, at) for run in runs]):,.0f} µs"
            ),
        )

    rows = [
        ["", *record.families],
        row("transactions/s", lambda runs: f"{median(_rates(runs)):,.0f}"),
        row(
            "  lowest to highest",
            lambda runs: f"{min(_rates(runs)):,.0f} to {max(_rates(runs)):,.0f}",
        ),
        latency("latency min", "min", min),
        *(latency(f"  {at}", at, median) for at in ("mean", "p50", "p90", "p99")),
        latency("  max", "max", max),
    ]
    sent = [_lengths(record, series, "sent") for series in every]
    if any(sent):
        rows += [
            [
                "bytes above 64 KiB",
                *(percent(each.histogram.big_share if each else None) for each in sent),
            ],
            ["longest skb", *(f"{each.longest:,} B" if each else "-" for each in sent)],
            ["wire packets per skb", *(_segments(each) for each in sent)],
        ]
    return table(rows)


def _rates(runs: tuple[Run, ...]) -> list[float]:
    return [run.transactions_per_second for run in runs]


def _segments(lengths: Lengths | None) -> str:
    found = lengths.segments_per_skb if lengths else None
    return "-" if found is None else f"{found:.1f}"
