# SPDX-License-Identifier: Apache-2.0
"""Text and JSON of a demo."""

import json
from typing import Any

from agent.snapshot.experiment import Arm, Comparison, Demo, Gain
from agent.snapshot.histogram import Histogram

SCHEMA = "bigtcp.demo/v1"
_BAR_WIDTH = 23
_KIB = 1024
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def size(length: float) -> str:
    """Bytes as people say them: KiB where that is a whole number."""
    if length >= _KIB and length % _KIB == 0:
        return f"{length / _KIB:.0f} KiB"
    return f"{length:,.0f} B"


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def bar(share: float, width: int = _BAR_WIDTH) -> str:
    """A bar of `share` (0 to 1) of `width` characters, in eighths of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if share > 0 and not eighths:
        eighths = 1  # something is never drawn as nothing
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def table(rows: list[list[str]]) -> list[str]:
    """Lines of a table: first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def histograms(columns: dict[str, Histogram]) -> list[str]:
    """Histograms side by side, a bar for the share of skbs in each slot.

    Slots that are empty in all columns before the first and after the last
    used one are left out.
    """
    edges = next(iter(columns.values())).edges
    used = [
        slot
        for slot in range(len(edges) + 1)
        if any(histogram.slots[slot] for histogram in columns.values())
    ]
    if not used:
        return ["nothing was counted"]
    width = _BAR_WIDTH + 9
    lines = ["up to".rjust(12) + "".join(f"  {name:<{width}}" for name in columns)]
    for slot in range(used[0], used[-1] + 1):
        label = size(edges[slot]) if slot < len(edges) else "longer"
        line = label.rjust(12)
        for histogram in columns.values():
            share = histogram.slots[slot] / histogram.count if histogram.count else 0
            text = f"{bar(share):<{_BAR_WIDTH}} {percent(share) if share else '':>7}"
            line += f"  {text:<{width}}"
        lines.append(line.rstrip())
        if slot < len(edges) and edges[slot] == 64 * _KIB and slot != used[-1]:
            mark = "64 KiB ".rjust(12, "·")
            lines.append(mark + "· above: only with BIG TCP ".ljust(width * 2, "·"))
    return [line.rstrip() for line in lines]


def _gain(gain: Gain) -> str:
    return f"{gain.median:+.1f} %  ({gain.low:+.1f} to {gain.high:+.1f})"


def _arm_rows(comparison: Comparison) -> list[list[str]]:
    head = [
        f"{comparison.family}, BIG TCP",
        "transactions/s",
        "min µs",
        "p90 µs",
        "p99 µs",
        "bytes above 64 KiB",
        "longest skb",
        "wire packets/skb",
        f"against {comparison.arms[0].name}",
    ]
    rows = [head]
    for arm in comparison.arms:
        lowest, p90, p99 = arm.latencies_us
        segments = arm.segments_per_skb
        rows.append(
            [
                arm.name,
                f"{arm.transactions_per_second:,.0f}",
                f"{lowest:.0f}",
                f"{p90:.0f}",
                f"{p99:.0f}",
                percent(arm.histogram.big_share),
                f"{arm.sent.longest:,} B",
                "-" if segments is None else f"{segments:.1f}",
                "" if arm is comparison.arms[0] else _gain(comparison.gain(arm)),
            ]
        )
    return rows


def demo_text(demo: Demo) -> str:
    """The demo for people, without a trailing newline."""
    lines = [
        f"netperf TCP_RR 80000:80000 on {demo.machine}, Linux {demo.kernel};",
        (
            f"medians of {len(demo.comparisons[0].arms[0].trials)} runs in turns of "
            f"{demo.seconds:g} s, both ends on one CPU. Lengths are those of the skbs "
            "that the client sends."
        ),
    ]
    for comparison in demo.comparisons:
        lines += ["", *table(_arm_rows(comparison)), ""]
        lines += histograms(
            {
                f"{comparison.family}, BIG TCP {arm.name}": arm.histogram
                for arm in comparison.arms
            }
        )
        for arm in comparison.arms:
            if arm.segmented_in_software:
                lines += ["", _cut(demo, comparison, arm)]
    for reason, count in demo.unrecorded.items():
        if count:
            lines += ["", f"{count:,} skbs were not counted ({reason})"]
    return "\n".join(lines)


def _cut(demo: Demo, comparison: Comparison, arm: Arm) -> str:
    gain = comparison.gain(arm).median
    slower = f": {-gain:.0f} % slower than BIG TCP off" if gain < 0 else ""
    return (
        f"BIG TCP {arm.name}: segmented in software at {demo.device}{slower}. "
        f"{arm.segmented_in_software:,} skbs above 64 KiB were queued there, none "
        "was transmitted: its limit is 64 KiB."
    )


def _arm_json(comparison: Comparison, arm: Arm) -> dict[str, Any]:
    gain = comparison.gain(arm)
    histogram = arm.histogram
    return {
        "name": arm.name,
        "transactions_per_second": arm.transactions_per_second,
        "gain_percent": {"median": gain.median, "min": gain.low, "max": gain.high},
        "latency_us": dict(zip(("min", "p90", "p99"), arm.latencies_us, strict=True)),
        "big_bytes_share": histogram.big_share,
        "longest_bytes": arm.sent.longest,
        "segments_per_skb": arm.segments_per_skb,
        "segmented_in_software": arm.segmented_in_software,
        "sent": {
            "skbs": histogram.count,
            "bytes": histogram.bytes,
            "big_bytes": histogram.big_bytes,
            "segments": arm.sent.segments,
            "slots": list(histogram.slots),
        },
        "trials": [trial.netperf.transactions_per_second for trial in arm.trials],
    }


def demo_json(demo: Demo) -> str:
    """The demo for machines: one JSON object, its `schema` versioned."""
    edges = demo.comparisons[0].arms[0].histogram.edges
    return json.dumps(
        {
            "schema": SCHEMA,
            "kernel": demo.kernel,
            "machine": demo.machine,
            "topology": demo.topology,
            "device": demo.device,
            "seconds": demo.seconds,
            "edges_bytes": list(edges),
            "families": {
                comparison.family: [
                    _arm_json(comparison, arm) for arm in comparison.arms
                ]
                for comparison in demo.comparisons
            },
            "unrecorded": demo.unrecorded,
        },
        indent=2,
    )
