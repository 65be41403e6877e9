# SPDX-License-Identifier: Apache-2.0
"""The PrometheusRule is charts/bigtcp-agent/rules, but for what cannot hold."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart import helm
from tests.prometheus import tool

CILIUM = 'node:bigtcp_source_up:min{source="cilium"} == 0'
ABSENT = "or absent_over_time("


def groups(*values: str) -> list[helm.Object]:
    """Of the rendered rule."""
    flags = ",".join(("prometheusRule.enabled=true", *values))
    made = helm.one(helm.template(f"--set={flags}"), "PrometheusRule")
    found: list[helm.Object] = made["spec"]["groups"]
    return found


def expressions(made: list[helm.Object]) -> dict[str, str]:
    """By name of the alert."""
    return {
        rule["alert"]: rule["expr"]
        for group in made
        for rule in group["rules"]
        if "alert" in rule
    }


def test_by_default_it_is_all_of_them() -> None:
    files = sorted((helm.CHART / "rules").glob("*.yaml"))
    ours = [
        each for path in files for each in yaml.safe_load(path.read_text())["groups"]
    ]
    assert groups() == ours


@pytest.mark.parametrize(
    ("value", "alert", "left_out"),
    [
        ("cilium.enabled=false", "BigTCPBlind", CILIUM),
        ("prometheusRule.absent=false", "BigTCPAgentDown", ABSENT),
    ],
)
def test_what_would_alert_for_ever_is_left_out(
    value: str, alert: str, left_out: str, tmp_path: Path
) -> None:
    before, made = expressions(groups()), groups(value)
    after = expressions(made)
    lines = before[alert].splitlines()
    (gone,) = (line for line in lines if left_out in line)
    lines.remove(gone)
    assert after == before | {alert: "".join(f"{line}\n" for line in lines)}
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": made}))
    subprocess.run([tool("promtool"), "check", "rules", str(file)], check=True)


def test_agents_are_known_by_their_container_whatever_the_job_is_called() -> None:
    objects = helm.template("--set=nameOverride=big,netperf.enabled=true")
    agent, *others = (
        helm.container(helm.one(objects, kind))["name"]
        for kind in ("DaemonSet", "Deployment", "Job")
    )
    assert f'up{{container="{agent}"}}' in expressions(groups())["BigTCPAgentDown"]
    assert agent not in others
