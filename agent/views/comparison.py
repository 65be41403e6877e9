# SPDX-License-Identifier: Apache-2.0
"""Text and JSON of two measurements compared."""

import json
from statistics import median
from typing import Any

from agent.snapshot.comparison import Compared, Measured, Row, Unit
from agent.snapshot.interval import Interval
from agent.views.report import percent
from agent.views.width import beside, columns, table, wrap

SCHEMA = "bigtcp.compare/v1"
_NAME = 10  # the longest that heads a column
_DIGITS = 100  # from here on a number needs no decimals
_UNITS = {"G": 1e9, "M": 1e6}  # of what is too long for a cell
_FORMATS = {
    Unit.PER_SECOND: "{:,.0f}",
    Unit.BYTES: "{:,.0f} B",
    Unit.PACKETS: "{:.1f}",
}
_LABELS = {
    "transactions_per_second": "transactions/s",
    "bytes_per_second": "bytes/s sent",
    "p50_latency_us": "latency p50",
    "p90_latency_us": "latency p90",
    "p99_latency_us": "latency p99",
    "mean_latency_us": "latency mean",
    "big_bytes_share": "above 64 KiB",
    "segments_per_skb": "packets per skb",
    "longest_bytes": "longest skb",
}


def label(row: Row) -> str:
    """What people call its metric."""
    return _LABELS[row.metric.name]


def amount(value: float, unit: Unit) -> str:
    """A value in its unit."""
    if unit is Unit.SHARE:
        return percent(value)
    if unit is Unit.BYTES_PER_SECOND:
        return _short(value)
    if unit is Unit.MICROSECONDS:
        return f"{value:,.0f} µs" if value >= _DIGITS else f"{value:.1f} µs"
    return _FORMATS[unit].format(value)


def difference(row: Row) -> tuple[str, str]:
    """B against A, and the 95 % interval: in per cent, in points (pts) for a share, in
    the metric's unit where A is 0.
    """
    told, sign = row.percent or row.interval, " %" if row.percent else ""
    if row.metric.unit is Unit.SHARE:
        sign = " pts"
    return (
        _signed(told.difference) + sign,
        f"{_signed(told.low)} to {_signed(told.high)}",
    )


def _signed(value: float) -> str:
    return _short(value, "+") if abs(value) >= _DIGITS else f"{value:+.1f}"


def _short(value: float, sign: str = "") -> str:
    """With commas; in four digits from a million on: 10 Gbit/s are 1.25 G bytes/s."""
    for unit, size in _UNITS.items():
        if abs(value) >= size:
            return f"{value / size:{sign}.4g} {unit}"
    return f"{value:{sign},.0f}"


def compared_text(compared: Compared) -> str:
    """The comparison for people, without a trailing newline."""
    a, b = compared.a, compared.b
    names = [a.name, b.name]
    if a.name == b.name or max(map(columns, names)) > _NAME:
        names = ["A", "B"]
    lines = [*_measured("A", a), *_measured("B", b)]
    for note in compared.notes:
        lines += wrap(f"note: {note}", then="  ")
    for family, rows in compared.rows.items():
        cells = [[family, *names, "difference", "95 % interval", ""]]
        for row in rows:
            unit = row.metric.unit
            cells.append(
                [
                    label(row),
                    amount(median(row.a), unit),
                    amount(median(row.b), unit),
                    *difference(row),
                    row.verdict,
                ]
            )
        lines += ["", *table(cells)]
    return "\n".join(lines)


def _measured(letter: str, measured: Measured) -> list[str]:
    about = "; ".join(
        f"{what} {told}" for what, told in measured.about.items() if told != "-"
    )
    return [
        *beside(f"{letter}  {measured.name}", f"({measured.path})"),
        *wrap(about, first="   ", then="   "),
    ]


def _interval_json(interval: Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {
        "difference": interval.difference,
        "low": interval.low,
        "high": interval.high,
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "metric": row.metric.name,
        "unit": row.metric.unit,
        "higher_is_better": row.metric.higher_is_better,
        "a": {"median": median(row.a), "runs": list(row.a)},
        "b": {"median": median(row.b), "runs": list(row.b)},
        "absolute": _interval_json(row.interval),
        "percent": _interval_json(row.percent),
        "verdict": row.verdict,
    }


def _measured_json(measured: Measured) -> dict[str, Any]:
    return {
        "path": measured.path,
        "name": measured.name,
        "kind": measured.kind,
        "about": dict(measured.about),
    }


def compared_json(compared: Compared) -> str:
    """The comparison for machines: one JSON object, its `schema` versioned."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "a": _measured_json(compared.a),
            "b": _measured_json(compared.b),
            "notes": list(compared.notes),
            "families": {
                family: [_row_json(row) for row in rows]
                for family, rows in compared.rows.items()
            },
        },
        indent=2,
    )
