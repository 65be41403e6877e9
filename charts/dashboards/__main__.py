# SPDX-License-Identifier: Apache-2.0
"""`python -m charts.dashboards` writes the chart's dashboards anew."""

import json
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from charts.dashboards.node import node
from charts.dashboards.overview import overview
from charts.dashboards.pods import pods

FOLDER = Path(__file__).parent.parent / "bigtcp-agent/dashboards"
DASHBOARDS = {"overview": overview, "node": node, "pods": pods}


def text(dashboard: Dashboard) -> str:
    """As it is committed."""
    built = dashboard.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return json.dumps(built, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all of them."""
    for name, define in DASHBOARDS.items():
        (FOLDER / f"{name}.json").write_text(text(define()))


if __name__ == "__main__":
    main()
