# SPDX-License-Identifier: Apache-2.0
"""Text and JSON of a demo."""

import json
from typing import Any

from agent.snapshot.experiment import Arm, Comparison, Demo, Gain
from agent.snapshot.histogram import Histogram, used_slots
from agent.views.width import WIDTH, table, wrap

SCHEMA = "bigtcp.demo/v1"
_LABEL = 9
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


def bar(share: float, width: int) -> str:
    """A bar of `share` (0 to 1) of `width` characters, in eighths of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if share > 0 and not eighths:
        eighths = 1  # something is never drawn as nothing
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def histograms(columns: dict[str, Histogram]) -> list[str]:
    """Histograms side by side, a bar for the share of skbs in each slot.

    Slots that are empty in all columns before the first and after the last
    used one are left out.
    """
    edges = next(iter(columns.values())).edges
    used = used_slots(columns.values())
    if not used:
        return ["nothing was counted"]
    width = (WIDTH - _LABEL) // len(columns) - 2
    longest = width - 8  # beside a percentage
    head = "".join(f"  {name:<{width}}" for name in columns)
    lines = ["up to".rjust(_LABEL) + head]
    for slot in used:
        label = size(edges[slot]) if slot < len(edges) else "longer"
        line = label.rjust(_LABEL)
        for histogram in columns.values():
            share = histogram.slots[slot] / histogram.count if histogram.count else 0
            drawn = bar(share, longest)
            line += f"  {drawn:<{longest}} {percent(share) if share else '':>7}"
        lines.append(line)
        if slot < len(edges) and edges[slot] == 64 * _KIB and slot != used[-1]:
            lines.append(" 64 KiB · above: only with BIG TCP ".center(WIDTH, "·"))
    return [line.rstrip() for line in lines]


def _gain(gain: Gain) -> str:
    return f"{gain.median:+.1f} %"


def _range(gain: Gain) -> str:
    return f"{gain.low:+.1f} to {gain.high:+.1f}"


def _results(comparison: Comparison) -> list[str]:
    """A column for each way of running."""
    first, *others = comparison.arms
    gains = [comparison.gain(arm) for arm in others]
    latencies = [arm.latencies_us for arm in comparison.arms]
    segments = [arm.segments_per_skb for arm in comparison.arms]
    rows = [
        [
            f"{comparison.family}, BIG TCP",
            *(arm.name for arm in comparison.arms),
        ],
        [
            "transactions/s",
            *(f"{arm.transactions_per_second:,.0f}" for arm in comparison.arms),
        ],
        [f"  against {first.name}", "", *map(_gain, gains)],
        ["  lowest to highest", "", *map(_range, gains)],
        *(
            [label, *(f"{times[i]:.0f} µs" for times in latencies)]
            for i, label in enumerate(("latency min", "  p90", "  p99"))
        ),
        [
            "bytes above 64 KiB",
            *(percent(arm.histogram.big_share) for arm in comparison.arms),
        ],
        ["longest skb", *(f"{arm.sent.longest:,} B" for arm in comparison.arms)],
        [
            "wire packets per skb",
            *("-" if each is None else f"{each:.1f}" for each in segments),
        ],
    ]
    return table(rows)


def demo_text(demo: Demo) -> str:
    """The demo for people, without a trailing newline."""
    lines = [
        *wrap(f"netperf TCP_RR 80000:80000, {demo.machine}, Linux {demo.kernel}."),
        (
            f"Medians of {len(demo.comparisons[0].arms[0].trials)} runs in turns of "
            f"{demo.test.seconds:g} s, both ends on one CPU."
        ),
        "Lengths are those of the skbs that the client sends.",
    ]
    for comparison in demo.comparisons:
        lines += ["", *_results(comparison), ""]
        lines += histograms(
            {f"BIG TCP {arm.name}": arm.histogram for arm in comparison.arms}
        )
        for arm in comparison.arms:
            if arm.segmented_in_software:
                lines += ["", *wrap(_cut(demo, comparison, arm))]
    for reason, count in demo.unrecorded.items():
        if count:
            lines += ["", f"{count:,} skbs were not counted ({reason})"]
    return "\n".join([*lines, "", _summary(demo)])


def _summary(demo: Demo) -> str:
    """One line to remember."""
    gains = ", ".join(
        f"{comparison.family} {_gain(comparison.gain(comparison.arms[-1]))}"
        for comparison in demo.comparisons
    )
    return f"BIG TCP {demo.comparisons[0].arms[-1].name}: {gains} transactions/s"


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
            "seconds": demo.test.seconds,
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
