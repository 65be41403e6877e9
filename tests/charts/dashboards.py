# SPDX-License-Identifier: Apache-2.0
"""The committed dashboards, as Grafana would read them."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent.parent / "charts/bigtcp-agent/dashboards"
NAMES = ("overview", "node", "pods")
# What a user sees first: everything, and a window that holds a whole test.
CHOICES = {
    "cluster": ".*",
    "job": ".+",
    "node": ".*",
    "instance": ".+",
    "interface": ".*",
    "namespace": ".*",
    "pod": ".*",
    "scope": "node",
    "__rate_interval": "5m",
    "__range": "5m",
}


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in load(name)["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    dashboard: str
    panel: str
    type: str
    ref: str
    expr: str

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel} {self.ref}"


def queries() -> Iterator[Query]:
    for name in NAMES:
        for panel in panels(name):
            for target in panel["targets"]:
                yield Query(
                    name, panel["title"], panel["type"], target["refId"], target["expr"]
                )


def chosen(expr: str, choices: Mapping[str, str] | None = None) -> str:
    """With the values of the variables in their places."""
    values = CHOICES | dict(choices or {})
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: values[m[1] or m[2]], expr)
