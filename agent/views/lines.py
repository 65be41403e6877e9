# SPDX-License-Identifier: Apache-2.0
"""What passed in a period as plain text, as JSON and as lines of JSON.

Each takes the sample that ends the period, too: for the node and its verdicts.
"""

import json
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from agent.snapshot.sample import Line, Period, Sample
from agent.views.arrange import View
from agent.views.cells import limit, percent, si
from agent.views.check import reason_lines
from agent.views.traffic import Traffic
from agent.views.who import cilium_words
from agent.views.width import beside, table, wrap

SCHEMA = "bigtcp.top/v1"
_TABLE_WIDTH = 120  # of 80 the names of pods would get 20


def top_text(now: Sample, period: Period, who: str) -> str:
    """A table for people: devices of scope other are summed, what passed most is
    first; rows that nothing passed are left out.
    """
    traffic = Traffic()
    traffic.put(now, period)
    snapshot = now.snapshot
    whose = cilium_words(snapshot)
    when = time.strftime("%Y-%m-%d %T", time.localtime(now.taken))
    lines = [
        *wrap(f"{snapshot.node or 'this node'}, Linux {snapshot.kernel}, {whose}"),
        *beside(f"{when}, {traffic.seconds:.1f} s, as seen by", who),
        *reason_lines(snapshot, states=True),
    ]
    rows = [row for row in View().arranged(traffic.rows) if row.skbs]
    if not rows:
        return "\n".join([*lines, "", "nothing passed"])
    heads = ["name", "hook", "IP", "limit", "skb/s", "B/s", ">64 KiB", "longest"]
    cells = [
        [
            row.name,
            row.hook,
            row.family,
            limit(row.limit),
            si(row.skbs),
            si(row.bytes),
            percent(row.share),
            f"{row.longest:,}",
            "-" if row.packets is None else f"{row.packets:.1f}",
        ]
        for row in rows
    ]
    told = table([[*heads, "pkt/skb"], *cells], _TABLE_WIDTH, names=(0, 1))
    return "\n".join([*lines, "", *told])


def top_document(now: Sample, period: Period, who: str) -> dict[str, Any]:
    """One object: who tells it, the node, its verdicts, and a row per device, hook and
    family.

    Within a version of the schema members are only added.
    """
    snapshot = now.snapshot
    return {
        "schema": SCHEMA,
        "time": now.taken,
        "seconds": period.seconds,
        "source": who,
        "node": snapshot.node,
        "kernel": snapshot.kernel,
        "cilium": snapshot.cilium.version if snapshot.cilium else None,
        "families": msgspec.to_builtins(snapshot.families),
        "findings": [finding.id for finding in snapshot.findings],
        "edges": list(now.edges),
        "rows": [_row(line, period) for line in period.lines.values()],
    }


def top_rows(now: Sample, period: Period) -> Iterable[str]:
    """A line of JSON per row, each with the schema and the time."""
    at = {"schema": SCHEMA, "time": now.taken, "seconds": period.seconds}
    for line in period.lines.values():
        yield json.dumps({**at, **_row(line, period)})


def _row(line: Line, period: Period) -> dict[str, Any]:
    """Sizes in bytes; shares 0 to 1, null where nothing passed."""
    histogram = line.lengths.histogram
    return {
        "name": line.name,
        "device": line.device,
        "netns": line.netns,
        "pod": line.pod,
        "scope": line.scope,
        "hook": line.key.hook,
        "ip_family": line.key.family,
        "limit": line.limit,
        "skbs_per_second": period.per_second(histogram.count),
        "bytes_per_second": period.per_second(histogram.bytes),
        "big_share": histogram.big_share,
        "longest": line.lengths.longest,
        "packets_per_skb": line.lengths.segments_per_skb,
        "slots": list(histogram.slots),
    }
