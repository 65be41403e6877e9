# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING.md lists every module of the agent and every folder of tests."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LAYOUT = (ROOT / "CONTRIBUTING.md").read_text().partition("## What is")[0]
MODULES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "agent").rglob("*.py")
    if not path.stem.startswith("__")
)
FOLDERS = sorted({path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")})


def entries() -> dict[str, str]:
    """The text of each entry, by the path that it begins with."""
    found: dict[str, str] = {}
    path = ""
    for line in LAYOUT.splitlines():
        if start := re.match(r" {4}([.\w]\S*) +(.*)", line):
            path = start[1]
            found[path] = start[2]
        elif line.startswith(" " * 8) and path:
            found[path] += " " + line.strip()
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_is_listed(module: Path) -> None:
    listed = entries()
    if module.parent.name == "agent":
        assert any(
            module.name in (Path(path).name, *re.findall(r"\w+\.py", text))
            for path, text in listed.items()
        )
    else:
        assert re.search(rf"\b{module.stem}\b", listed[f"{module.parent}/"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_tests_is_listed(folder: str) -> None:
    assert FOLDERS
    listed = entries()
    assert f"tests/{folder}/" in listed or re.search(
        rf"\b{folder}\b", listed["tests/"] + listed["tests/charts/"]
    )
