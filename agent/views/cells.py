# SPDX-License-Identifier: Apache-2.0
"""Cells of the table of `top`: short, and of a known width. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.views.report import bar
from agent.views.traffic import Row
from agent.views.width import shorten

DASH = "-"
_KIB = 1024
_LEVELS = "▁▂▃▄▅▆▇█"
_LEAST_NAME, _MOST_NAME = 14, 44
_LEAST_BAR, _MOST_BAR = 4, 12
_LEAST_TREND, _MOST_TREND = 6, 60
_PERCENT = 4
_WIDTHS = {
    "hook": 6,
    "IP": 3,
    "limit": 6,
    "skb/s": 6,
    "B/s": 6,
    ">64 KiB": _PERCENT + 1,  # and the bar
    "longest": 7,
    "pkt/skb": 7,
}
_SPARE = ("trend", "longest", "limit")  # what a narrow screen does without, in turns
LEFT = ("name", "hook", "IP", "trend")


def si(value: float | None) -> str:
    """A rate in five characters, with k, M, G or T; a dash for none."""
    if value is None:
        return DASH
    for unit in ("", "k", "M", "G", "T", "P"):
        digits = 0 if not unit or value >= 99.95 else 1 if value >= 9.995 else 2  # noqa: PLR2004
        if round(value, digits) < 1000 or unit == "P":  # noqa: PLR2004
            return f"{value:.{digits}f}{unit}"
        value /= 1000
    raise AssertionError


def limit(size: int) -> str:
    """A size limit: 192K where that is a whole number; a dash for none."""
    if not size:
        return DASH
    return f"{size}" if size % _KIB else f"{size // _KIB}K"


def percent(share: float | None) -> str:
    """A share in four characters; what is not all is not 100%, what is there not 0%."""
    if share is None:
        return DASH
    if 0 < share < 0.005:  # noqa: PLR2004  would be 0%
        return "<1%"
    return "99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"  # noqa: PLR2004


def spark(shares: Sequence[float | None], width: int) -> str:
    """The last `width` shares, a character each; a blank where nothing passed."""
    last = list(shares)[-width:] if width else []
    drawn = (
        " " if share is None else _LEVELS[math.ceil(7 * min(share, 1.0))]
        for share in last
    )
    return "".join(drawn).rjust(width)


@dataclass(frozen=True, slots=True)
class Columns:
    """Width of each column of a table, in order; `bar` is the part of >64 KiB."""

    widths: dict[str, int]
    bar: int

    @classmethod
    def of(cls, width: int, rows: Sequence[Row]) -> "Columns":
        """For a screen of `width` columns: names first, then bars and trends."""
        widths = dict(_WIDTHS)
        spare = list(_SPARE)
        name = min(_MOST_NAME, max((len(row.name) for row in rows), default=0))
        trend = _LEAST_TREND
        while True:
            gaps = len(widths) + (1 if trend else 0)
            room = width - sum(widths.values()) - gaps - _LEAST_BAR - trend
            if room >= _LEAST_NAME or not spare:
                break
            if (column := spare.pop(0)) == "trend":
                trend = 0
            else:
                del widths[column]
        its = max(0, min(room, max(_LEAST_NAME, name)))
        room = max(0, room - its)
        longer = min(room // 2, _MOST_TREND - _LEAST_TREND) if trend else 0
        wider = min(room - longer, _MOST_BAR - _LEAST_BAR)
        widths = {"name": its, **widths}
        widths[">64 KiB"] += _LEAST_BAR + wider
        if trend:
            widths["trend"] = trend + longer
        return cls(widths, _LEAST_BAR + wider)

    def cells(self, row: Row) -> dict[str, str]:
        """The text of each column, padded to its width."""
        shares = f"{percent(row.share):>{_PERCENT}} {bar(row.share or 0, self.bar)}"
        texts = {
            "name": shorten(row.name, self.widths["name"]),
            "hook": shorten(row.hook, self.widths["hook"]),
            "IP": row.family,
            "limit": limit(row.limit),
            "skb/s": si(row.skbs),
            "B/s": si(row.bytes),
            ">64 KiB": shares.ljust(self.widths[">64 KiB"]),
            "longest": f"{row.longest:,}" if row.longest else DASH,
            "pkt/skb": DASH if row.packets is None else f"{row.packets:.1f}",
            "trend": spark(row.trend, self.widths.get("trend", 0)),
        }
        return {
            name: texts[name].ljust(width) if name in LEFT else texts[name].rjust(width)
            for name, width in self.widths.items()
        }

    def heads(self, sort: str, *, descending: bool) -> dict[str, str]:
        """The head of each column, padded; the one that sorts has an arrow, and may
        be a character too long for it.
        """
        arrow = "▼" if descending else "▲"
        found = {}
        for name, width in self.widths.items():
            text = f"{name}{arrow}" if name == sort and name in LEFT else name
            if name == sort and name not in LEFT:
                text = f"{arrow}{name}"
            left = name in LEFT or name == ">64 KiB"
            found[name] = text.ljust(width) if left else text.rjust(width)
        return found
