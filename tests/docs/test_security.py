# SPDX-License-Identifier: Apache-2.0
"""docs/SECURITY.md against the values that there are, and one file of that name."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/SECURITY.md").read_text()
VALUES = yaml.safe_load((ROOT / "charts/bigtcp-agent/values.yaml").read_text())


def test_its_values_are_the_charts() -> None:
    groups = [name for name, value in VALUES.items() if isinstance(value, dict)]
    named = set(re.findall(rf"`((?:{'|'.join(groups)})(?:\.\w+)+)", TEXT))
    assert {"cilium.enabled", "web.basicAuthUsers"} <= named
    for name in named:
        place = VALUES
        for key in name.split("."):
            assert key in place, name
            place = place[key]


def test_there_is_one() -> None:
    """Its name in other letters would be the same file on some file systems."""
    files = [path.relative_to(ROOT) for path in (ROOT / "docs").iterdir()]
    assert [str(each) for each in files if each.stem.lower() == "security"] == [
        "docs/SECURITY.md"
    ]
