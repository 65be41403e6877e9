# SPDX-License-Identifier: Apache-2.0
"""`python -m charts.dashboards.draw URL MINUTES FOLDER`: the committed dashboards as
pictures, from the answers of a Prometheus.

This is not Grafana: queries, units, words and colours are the dashboards' own, the
drawing is ours.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charts.dashboards import picture, plots
from charts.dashboards.__main__ import DASHBOARDS, FOLDER
from charts.dashboards.picture import Box
from charts.dashboards.plots import Series, Span

WIDTH, ROW, GAP = 1200, 30, 4
STEPS = 80  # of a range


class Answers:
    """What a Prometheus says of the last minutes."""

    def __init__(self, url: str, minutes: float, end: float) -> None:
        self._url = url
        self.span = (end - 60 * minutes, end)
        self.step = 60 * minutes / STEPS
        self._choices = {
            **dict.fromkeys(("cluster", "node", "interface"), ".*"),
            **dict.fromkeys(("namespace", "pod"), ".*"),
            **dict.fromkeys(("job", "instance"), ".+"),
            "scope": "node",
            "__rate_interval": "20s",
            "__range": f"{minutes * 60:.0f}s",
        }

    def ask(self, expr: str, *, now: bool) -> list[dict[str, Any]]:
        """Series of a query: `metric` and `value`, or `values` of the range."""
        query = re.sub(
            r"\$(?:\{(\w+)\}|(\w+))", lambda m: self._choices[m[1] or m[2]], expr
        )
        start, end = self.span
        parameters = {"query": query, "time": str(end)}
        if not now:
            parameters |= {"start": str(start), "end": str(end)}
            parameters["step"] = str(self.step)
        path = "query" if now else "query_range"
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  the user's
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), legend).strip()


def _series(answers: Answers, panel: Mapping[str, Any]) -> list[Series]:
    return [
        Series(
            _named(target["legendFormat"], found["metric"]),
            [(float(t), float(v)) for t, v in found["values"]],
        )
        for target in panel["targets"]
        for found in answers.ask(target["expr"], now=False)
    ]


def _words(panel: Mapping[str, Any]) -> dict[str, Any]:
    mappings = panel["fieldConfig"]["defaults"].get("mappings")
    return dict(mappings[0]["options"]) if mappings else {}


def _table(answers: Answers, panel: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Header and cells, merged and organized as the panel's transformations do."""
    names = panel["transformations"][1]["options"]["renameByName"]
    looks = {
        each["matcher"]["options"]: {
            p["id"]: p.get("value") for p in each["properties"]
        }
        for each in panel["fieldConfig"]["overrides"]
    }
    unit = panel["fieldConfig"]["defaults"]["unit"]
    rows: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    several = len(panel["targets"]) > 1
    for target in panel["targets"]:
        column = names[f"Value #{target['refId']}" if several else "Value"]
        for found in answers.ask(target["expr"], now=True):
            key = tuple(sorted(found["metric"].items()))
            row = rows.setdefault(key, {})
            for label, value in key:
                if label in names:
                    row[names[label]] = _cell(value, looks.get(names[label], {}))
            value = found["value"][1]
            row[column] = _cell(
                value, looks.get(column, {}), looks.get(column, {}).get("unit", unit)
            )
    header = [name for name in names.values() if any(name in r for r in rows.values())]
    cells = [[row.get(name, "") for name in header] for row in rows.values()]
    return header, sorted(cells)


def _cell(value: str, look: Mapping[str, Any], unit: str = "") -> str:
    if "mappings" in look:
        words = look["mappings"][0]["options"].get(value)
        if words:
            return str(words["text"])
    return picture.shown(float(value), unit) if unit else value


def _events(answers: Answers, dashboard: Mapping[str, Any]) -> list[float]:
    """When the dashboard's annotations are, by their values."""
    start, end = answers.span
    times = {
        float(value) / 1000
        for annotation in dashboard["annotations"]["list"]
        for series in answers.ask(annotation["expr"], now=False)
        for _, value in series["values"]
    }
    return sorted(time for time in times if start <= time <= end)


def _panel(answers: Answers, panel: Mapping[str, Any], box: Box, span: Span) -> str:
    kind, title = panel["type"], panel["title"]
    drawn = picture.frame(box, title)
    if kind == "stat":
        found = answers.ask(panel["targets"][0]["expr"], now=True)
        value = float(found[0]["value"][1]) if found else None
        defaults = panel["fieldConfig"]["defaults"]
        fill = [
            step["color"]
            for step in defaults["thresholds"]["steps"]
            if step["value"] is None or (value or 0) >= step["value"]
        ][-1]
        return drawn + picture.number(box, value, defaults["unit"], picture.color(fill))
    if kind == "table":
        return drawn + picture.table(box, *_table(answers, panel))
    series = _series(answers, panel)
    if kind == "heatmap":
        return drawn + plots.heatmap(box, series, span)
    if kind == "state-timeline":
        return drawn + plots.timeline(box, series, _words(panel), span)
    return drawn + plots.lines(box, series, panel, span)


def draw(dashboard: Mapping[str, Any], answers: Answers) -> str:
    """One SVG of all panels, each where Grafana would put it."""
    column = WIDTH / 24
    bottom = 0
    drawn = []
    span = Span(*answers.span, answers.step, _events(answers, dashboard))
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        x, y = at["x"] * column, at["y"] * ROW + 40
        bottom = max(bottom, (at["y"] + at["h"]) * ROW + 44)
        if panel["type"] == "row":
            drawn.append(
                picture.text(x + 6, y + 21, panel["title"], size=14, weight="600")
            )
            continue
        box = Box(x + GAP / 2, y, at["w"] * column - GAP, at["h"] * ROW - GAP)
        drawn.append(_panel(answers, panel, box, span))
    title = picture.text(6, 26, dashboard["title"], size=18, weight="600")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" '
        'font-family="Inter, Helvetica, Arial, sans-serif">'
        f'<rect width="{WIDTH}" height="{bottom}" fill="#f4f5f5"/>'
        f"{title}{''.join(drawn)}</svg>\n"
    )


def write(url: str, minutes: float, folder: Path) -> None:
    """All dashboards; the last `minutes`."""
    answers = Answers(url, minutes, time.time())
    for name in DASHBOARDS:
        dashboard = json.loads((FOLDER / f"{name}.json").read_text())
        (folder / f"dashboards-{name}.svg").write_text(draw(dashboard, answers))


if __name__ == "__main__":
    write(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
