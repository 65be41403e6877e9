# SPDX-License-Identifier: Apache-2.0
"""What is said after an installation can be done as it is said."""

import shutil
from pathlib import Path

import pytest

from tests.chart import helm
from tests.server.test_web_config import HASH

RELEASE = "app.kubernetes.io/instance=try,app.kubernetes.io/component="


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its notes in a ConfigMap: `helm template` shows none."""
    copy = tmp_path_factory.mktemp("notes") / "bigtcp-agent"
    shutil.copytree(helm.CHART, copy)
    notes = (copy / "templates/NOTES.txt").read_text()
    (copy / "templates/notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}\n'
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
        'data: {notes: {{ include "notes" . | toJson }}}\n'
    )
    return copy


def notes(chart: Path, *flags: str) -> str:
    found = helm.template(*flags, chart=chart)
    text: str = helm.one(found, "ConfigMap", "notes")["data"]["notes"]
    return text


def test_each_command_is_for_one_node_or_for_all(chart: Path) -> None:
    """`exec daemonset/...` would ask any of them."""
    text = notes(chart)
    assert "\n  kubectl -n agents rollout status daemonset/try-bigtcp-agent\n" in text
    assert "AGENT=$(kubectl -n agents get pods --output name --field-selector" in text
    assert f"--selector {RELEASE}agent)" in text
    asking = [line for line in text.splitlines() if " exec " in line]
    assert len(asking) == 2
    assert all("kubectl -n agents exec " in line for line in asking)
    assert all("$AGENT -- bigtcp-agent check" in line for line in asking)
    upgrade = "helm -n agents upgrade try CHART --reset-then-reuse-values --set"
    assert f"{upgrade} netperf.enabled=true" in text
    assert "start with CAP_BPF and CAP_PERFMON" in text
    assert "Who reaches port 19715 of a node can read its metrics" in text
    some = (
        "some nodes only, give nodeSelector, affinity and tolerations those of Cilium"
    )
    assert some in text
    assert "some nodes only" not in notes(chart, "--set=cilium.enabled=false")
    assert "have no priority class" in text
    given = notes(chart, "--set=priorityClassName=system-node-critical")
    assert "priority" not in given
    assert "WARNING" not in text


NETPERF = "--set=netperf.enabled=true"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([NETPERF], "logs --follow job/try-bigtcp-agent-netperf-1\n"),
        ([NETPERF, "--set=netperf.schedule=@hourly"], f"{RELEASE}netperf-client\n"),
        (
            [NETPERF, f"--set-string=web.basicAuthUsers.me={HASH}"],
            "WARNING: netperf cannot say to the agents who it is",
        ),
        (["--set=kubernetes.enabled=false"], "WARNING: without kubernetes.enabled"),
        (["--set=agent.maxPods=1"], "configuration needs honor_labels"),
        (
            ["--set=agent.maxPods=1,cilium.enabled=false"],
            "WARNING: agent.maxPods tells no pods apart",
        ),
        (
            [
                "--set=serviceMonitor.enabled=true,web.existingSecret=mine",
                "--set=web.scheme=https",
            ],
            "WARNING: the agents serve HTTPS",
        ),
        (["--set=securityContext.privileged=true"], "are privileged"),
        (["--set=agent.port=29715"], "Who reaches port 29715"),
    ],
)
def test_what_follows_from_the_values(chart: Path, flags: list[str], said: str) -> None:
    assert said in notes(chart, *flags)
    assert said not in notes(chart)


def test_who_says_how_prometheus_trusts_is_not_warned(chart: Path) -> None:
    tls = "--set=web.tls.secretName=tls"
    monitor = "--set=serviceMonitor.enabled=true"
    ca = "--set=serviceMonitor.tlsConfig.ca.secret.name=tls"
    assert "WARNING" in notes(chart, tls, monitor)
    assert "WARNING" not in notes(chart, tls, monitor, ca)
    assert "WARNING" not in notes(chart, tls)
