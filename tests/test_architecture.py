# SPDX-License-Identifier: Apache-2.0
"""Imports point one way; heavy libraries stand in one room each."""

import ast
from pathlib import Path

import pytest

AGENT = Path(__file__).parent.parent / "agent"
FILES = sorted(AGENT.rglob("*.py"))
# Who may import which rooms of ours (what is in FOR_ALL: everybody).
FOR_ALL = ("errors", "input_files", "typed_json", "__version__")
MAY = {
    "errors": set(),
    "input_files": set(),
    "typed_json": set(),
    "logs": set(),
    "privileges": set(),
    "settings": {"snapshot"},
    "snapshot": {"snapshot"},
    "kernel": {"kernel", "snapshot"},
    "cluster": {"cluster", "snapshot"},
    "views": {"views", "snapshot", "record"},
    "server": {"server", "views", "snapshot", "settings"},
    "record": {"record", "snapshot"},
    "lab": {"lab", "kernel", "snapshot"},
    "__main__": {"cli"},
    "node": {"kernel", "cluster", "snapshot", "settings", "privileges"},
    "inquiry": {"node", "views", "snapshot", "settings", "logs"},
    "witness": {"inquiry", "snapshot"},
    "measurement": {"witness", "lab", "kernel", "record", "snapshot"},
    "watching": {"inquiry", "record", "snapshot", "views"},
    "commands": {
        *("commands", "node", "inquiry", "snapshot", "views", "lab", "record"),
        *("settings", "logs", "measurement", "witness", "watching", "privileges"),
        "server",
    },
    "cli": {"commands", "snapshot"},
}
COMMANDS = [file.stem for file in (AGENT / "commands").glob("*.py")]
SCREEN = ("app", "driver", "keys", "lines", "table")  # the rest of top needs no textual
ONLY = {
    "bcc": {"kernel/loader.py"},
    "seccomp": {"privileges.py"},
    "numpy": {"kernel/probes.py", "kernel/tables.py"},
    "prometheus_client": {
        *("views/exporter.py", "views/pod_metrics.py", "views/netperf_metrics.py"),
    },
    "kubernetes": {"cluster/kube.py"},
    "urllib3": {"cluster/kube.py"},
    "yaml": {"cluster/kube.py", "server/auth.py"},
    "bcrypt": {"server/auth.py"},
    "h11": {"server/http_server.py"},
    "textual": {f"views/top/{name}.py" for name in SCREEN},
    "rich": {"views/top/lines.py", "views/width.py"},
    "click": {"cli.py", *(f"commands/{name}.py" for name in COMMANDS)},
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(AGENT)))
def test_imports(file: Path) -> None:
    place = file.relative_to(AGENT)
    room = place.parts[0].removesuffix(".py")
    for name in imported(file):
        first, *rest = name.split(".")
        if first == "agent" and rest[0] not in FOR_ALL:
            assert rest[0] in MAY[room], f"{place} imports {name}"
        assert str(place) in ONLY.get(first, {str(place)}), f"{place} imports {name}"


CHARTS = sorted((AGENT.parent / "charts").rglob("*.py"))


@pytest.mark.parametrize("file", CHARTS, ids=lambda file: file.stem)
def test_dashboards_know_the_words_of_a_snapshot_only(file: Path) -> None:
    names = imported(file)
    rooms = {name.split(".")[1] for name in names if name.startswith("agent.")}
    assert rooms <= {"snapshot"}
    if file.stem in ("draw", "picture", "plots"):  # they read what is committed
        assert not any(name.startswith("grafana_foundation_sdk") for name in names)


def test_the_agent_knows_no_dashboards() -> None:
    for file in FILES:
        for name in imported(file):
            assert name.split(".")[0] not in ("charts", "grafana_foundation_sdk")
