# SPDX-License-Identifier: Apache-2.0
"""docs/lab.md against what the tests of the cluster expect at the same stages, and
against the flags, values and panels that there are.
"""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from agent.commands import cli
from agent.snapshot.findings import FINDING_IDS
from agent.snapshot.verdict import State
from tests.charts.dashboards import NAMES, load, panels
from tests.cluster import stages
from tests.cluster.cluster import BIG, Cluster
from tests.cluster.test_chart_walk import STAGES
from tests.cluster.test_walk import EXPECTED

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/lab.md").read_text()
VALUES = yaml.safe_load((ROOT / "charts/bigtcp-agent/values.yaml").read_text())
SECTIONS = dict(
    zip(
        stages.STAGES,
        re.findall(r"^## \d\. .*\n((?:(?!## ).*\n)*)", TEXT, re.MULTILINE),
        strict=True,
    )
)


def commands(text: str) -> list[list[str]]:
    """Words of the lines that are indented as commands; what a program says is
    indented more.
    """
    blocks = re.findall(r"^    \S.*\n(?:    .*\n)*", text, re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def item(stage: str, name: str) -> str:
    """A stage's item of the list that begins with that name."""
    (found,) = re.findall(
        rf"^- {name}:((?:.*\n(?!- |[^\s]))*.*)\n", SECTIONS[stage], re.MULTILINE
    )
    return cast("str", found)


@pytest.mark.parametrize("stage", stages.STAGES)
def test_check_says_what_it_says_on_the_cluster(stage: str) -> None:
    code, expected, findings = EXPECTED[stage]
    said = item(stage, "`check`")
    assert f"exit code {code}" in said
    states = [word for word in re.findall(r"`(\w+)`", said) if word in set(State)]
    both = "for both families" in said
    assert states * (1 + both) == expected
    assert sorted(set(re.findall(r"\bC\d\d\b", said))) == sorted(set(findings))


@pytest.mark.parametrize("stage", stages.STAGES)
def test_alerts_are_those_of_the_cluster(stage: str) -> None:
    assert set(re.findall(r"BigTCP\w+", SECTIONS[stage])) == set(STAGES[stage].alerts)


class Told:
    """A cluster that writes down what a stage tells it."""

    def __init__(self) -> None:
        self.settings: dict[str, str] = {}
        self.bridge: int | None = None
        self.pods_restarted = False

    def configure_cilium(self, **settings: str) -> None:
        self.settings |= {key.replace("_", "-"): v for key, v in settings.items()}

    def set_bridge(self, size: int) -> None:
        self.bridge = size

    def restart_cilium(self) -> None:
        """`cilium config set` does it."""

    def restart_pods(self) -> None:
        self.pods_restarted = True


@pytest.mark.parametrize("stage", [name for name in stages.STAGES if name != "off"])
def test_a_stage_is_reached_as_on_the_cluster(stage: str) -> None:
    told = Told()
    stages.STAGES[stage](cast("Cluster", told))
    argvs = commands(SECTIONS[stage])
    settings = [argv[3:] for argv in argvs if argv[:3] == ["cilium", "config", "set"]]
    assert dict(settings) == told.settings
    restarts = [argv for argv in argvs if {"restart", "replace"} & set(argv)]
    assert bool(restarts) is told.pods_restarted
    sizes = [
        dict(zip(argv[5::2], argv[6::2], strict=True))
        for argv in argvs
        if argv[:3] == ["ip", "link", "set"]
    ]
    if told.bridge is None:
        assert not sizes
    else:
        names = ("gso_max", "gro_max", "gso_ipv4_max", "gro_ipv4_max")
        assert sizes == [{f"{name}_size": str(told.bridge) for name in names}]
        assert told.bridge == BIG


def ours() -> list[list[str]]:
    """Our commands, wherever they run: on a pod, or as what an image runs."""
    return [
        argv[at + 1 :]
        for argv in commands(TEXT)
        for at, word in enumerate(argv)
        if word.split("/")[-1].split(":")[0] == "bigtcp-agent" and argv[0] != "helm"
        if argv[at + 1 : at + 2] and argv[at + 1] in cli.commands
    ]


def test_our_commands_are_understood() -> None:
    assert {argv[0] for argv in ours()} == {"check", "top", "netperf", "compare"}
    for name, *flags in ours():
        until = next((at for at, flag in enumerate(flags) if flag[0] == ">"), None)
        cli.commands[name].make_context(name, flags[:until])


def test_values_of_our_chart_exist() -> None:
    charts = [argv for argv in commands(TEXT) if "charts/bigtcp-agent" in argv]
    assert len(charts) == 2
    for argv in charts:
        for flag, values in pairwise(argv):
            if flag == "--set":
                for assignment in values.split(","):
                    found: Any = VALUES
                    for key in assignment.split("=")[0].split("."):
                        found = found[key]


def test_panels_and_findings_exist() -> None:
    titles = {"Cilium's configuration changed"}
    for name in NAMES:
        titles.add(load(name)["title"])
        for panel in panels(name):
            titles.add(panel["title"])
            for change in panel.get("transformations", []):
                titles |= set(change["options"].get("renameByName", {}).values())
    told = re.sub(r"^    .*$|`[^`]*`", "", TEXT, flags=re.MULTILINE)
    quoted = {" ".join(found.split()) for found in re.findall(r'"([^"]+)"', told)}
    assert len(quoted) > 10
    assert quoted <= titles
    assert set(re.findall(r"\bC\d\d\b", TEXT)) <= set(FINDING_IDS)


def test_every_stage_says_what_to_see() -> None:
    for stage in SECTIONS:
        for name in ("Sizes", "`check`", "`top`", "Grafana", "Alerts"):
            assert item(stage, name).strip()
