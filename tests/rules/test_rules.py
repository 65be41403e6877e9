# SPDX-License-Identifier: Apache-2.0
"""Rules, by Prometheus's own tool; their effect on real series is in tests/charts."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import tool

ROOT = Path(__file__).parent.parent.parent
RULES = sorted((ROOT / "charts/bigtcp-agent/rules").glob("*.yaml"))
CASES = sorted(Path(__file__).parent.glob("*.yaml"))


def rules(kind: str) -> list[dict[str, Any]]:
    return [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


ALERTS = rules("alert")
ALERT_NAMES = [alert["alert"] for alert in ALERTS]


def promtool(*argv: str) -> str:
    done = subprocess.run(
        [tool("promtool"), *argv], capture_output=True, text=True, check=False
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    return told


def test_promtool_accepts_them() -> None:
    assert len(RULES) == 2
    told = promtool("check", "rules", "--lint=all", *map(str, RULES))
    assert f"{len(ALERTS)} rules found" in told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(case: Path) -> None:
    promtool("test", "rules", str(case))


def expectations(alert: str) -> list[list[Any]]:
    """What the cases expect of an alert, at each moment where they look."""
    return [
        expected.get("exp_alerts", [])
        for case in CASES
        for test in yaml.safe_load(case.read_text())["tests"]
        for expected in test.get("alert_rule_test", [])
        if expected["alertname"] == alert
    ]


@pytest.mark.parametrize("alert", ALERT_NAMES)
def test_each_alert_is_seen_to_fire_and_to_be_silent(alert: str) -> None:
    expected = expectations(alert)
    assert any(expected)
    assert not all(expected)


@pytest.mark.parametrize("alert", ALERTS, ids=ALERT_NAMES)
def test_each_alert_leads_to_its_section_of_the_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    annotations = alert["annotations"]
    # No link: where the runbook can be read only the chart's user knows.
    assert set(annotations) == {"summary", "description", "runbook"}
    path, section = annotations["runbook"].split(" of bigtcp-agent, ")
    sections = re.findall(r"^## (\w+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert section == alert["alert"]
    assert section in sections


def test_the_runbook_has_no_section_without_an_alert() -> None:
    text = (ROOT / "docs/runbook.md").read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == ALERT_NAMES


def test_alerts_read_what_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules("record")}
    for alert in ALERTS:
        used = set(re.findall(r"\b(?:node|job):\w+:\w+", alert["expr"]))
        assert used, alert["alert"]
        assert used <= recorded
