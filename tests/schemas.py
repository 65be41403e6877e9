# SPDX-License-Identifier: Apache-2.0
"""The JSON Schemas of docs/: `python -m tests.schemas` writes them anew."""

import json
from pathlib import Path

import msgspec

from agent.record.netperf import Record
from agent.snapshot.schema import SnapshotJson

DOCS = Path(__file__).parent.parent / "docs"
KINDS = {"snapshot.schema.json": SnapshotJson, "netperf.schema.json": Record}


def schema(kind: type) -> str:
    """As a file has it."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | msgspec.json.schema(kind), indent=2) + "\n"


if __name__ == "__main__":
    for name, kind in KINDS.items():
        (DOCS / name).write_text(schema(kind))
