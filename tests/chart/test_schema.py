# SPDX-License-Identifier: Apache-2.0
"""Values that nobody can mean are refused before anything is installed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.chart import helm

REFUSED = [
    ("imag.tag=1", "imag"),
    ("agent.prot=1", "prot"),
    ("agent.port=0", "/agent/port"),
    ("agent.port=70000", "/agent/port"),
    ("agent.port=http", "/agent/port"),
    ("agent.hooks={net_dev_xmit}", "/agent/hooks/0"),
    ("agent.hooks={}", "/agent/hooks"),
    ("agent.hooks=null", "missing property 'hooks'"),
    ("agent.interfaces=null", "missing property 'interfaces'"),
    ("agent.interfaces={!}", "/agent/interfaces/0"),
    ("agent.interfaces={eth0\\,eth1}", "/agent/interfaces/0"),
    ("agent.maxPods=1001", "/agent/maxPods"),
    ("agent.maxInterfaces=-1", "/agent/maxInterfaces"),
    ("agent.logFormat=xml", "/agent/logFormat"),
    ("nameOverride=My_App", "/nameOverride"),
    ("nameOverride=a-", "/nameOverride"),
    ("fullnameOverride=my.app", "/fullnameOverride"),
    ("fullnameOverride=app.", "/fullnameOverride"),
    ("fullnameOverride=1st", "/fullnameOverride"),
    (
        "commonLabels.app\\.kubernetes\\.io/component=x",
        "/commonLabels/app.kubernetes.io~1component",
    ),
    ("commonLabels.helm\\.sh/chart=x", "/commonLabels/helm.sh~1chart"),
    (
        "podLabels.app\\.kubernetes\\.io/name=x",
        "/podLabels/app.kubernetes.io~1name",
    ),
    (
        "netperf.podLabels.app\\.kubernetes\\.io/instance=x",
        "/netperf/podLabels/app.kubernetes.io~1instance",
    ),
    ("cilium.runDirectory=run", "/cilium/runDirectory"),
    ("cilium.configMap=", "/cilium/configMap"),
    ("kubernetes.watchpods=true", "watchpods"),
    ("securityContext.privileged=yes", "/securityContext/privileged"),
    ("securityContext.capabilities.add={SYS_ADMIN}", "capabilities"),
    ("image.digest=sha256:1", "/image/digest"),
    ("image.pullPolicy=always", "/image/pullPolicy"),
    ("resources.limit.memory=1Gi", "limit"),
    ("updateStrategy.type=Recreate", "/updateStrategy/type"),
    ("updateStrategy.rollingUpdate.maxSurge=1", "/updateStrategy/rollingUpdate"),
    ("web.basicAuthUsers.me=secret", "/web/basicAuthUsers/me"),
    ("web.tls.minVersion=TLS10", "/web/tls/minVersion"),
    ("web.tls.clientAuthType=RequireAnyClientCert", "/web/tls/clientAuthType"),
    ("serviceMonitor.interval=30", "/serviceMonitor/interval"),
    ("serviceMonitor.interval=soon", "/serviceMonitor/interval"),
    ("dashboards.label=", "/dashboards/label"),
    ("netperf.seconds=0", "/netperf/seconds"),
    ("netperf.ttlSecondsAfterFinished=-1", "/netperf/ttlSecondsAfterFinished"),
    ("netperf.message=80000", "/netperf/message"),
    ("netperf.family=ipv5", "/netperf/family"),
    ("netperf.image.pullPolicy=always", "/netperf/image/pullPolicy"),
    ("netperf.schedule=hourly", "/netperf/schedule"),
    ("netperf.schedule=17 * * *", "/netperf/schedule"),
    ("netperf.server.host=http://server", "/netperf/server/host"),
    ("netperf.server.host=server:", "/netperf/server/host"),
    ("netperf.server.host=--help", "/netperf/server/host"),
]
ACCEPTED = [
    *("netperf.schedule=17 3 * * 1-5", "netperf.schedule=*/5 0\\,12 1 JAN ?"),
    *("netperf.schedule=@hourly", "netperf.schedule=@every 1h30m"),
    *("netperf.server.host=netserver.lab.svc:9", "netperf.server.host=192.0.2.2"),
    *("netperf.server.host=2001:db8::2", "netperf.server.host=[2001:db8::2]:7"),
    *("updateStrategy.rollingUpdate.maxSurge=0", "agent.interfaces={*}"),
    "commonLabels.app\\.kubernetes\\.io/part-of=x",
]


@pytest.mark.parametrize("version", helm.VERSIONS)
@pytest.mark.parametrize(("wrong", "where"), REFUSED)
def test_refused(wrong: str, where: str, version: str) -> None:
    done = helm.run(
        *(version, "template", "try", str(helm.CHART), "--kube-version=1.34.4"),
        f"--set={wrong}",
    )
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert where in done.stderr


@pytest.mark.parametrize("right", ACCEPTED)
def test_accepted(right: str) -> None:
    assert helm.template(f"--set={right}")


@pytest.mark.parametrize("what", ["hooks", "interfaces"])
def test_an_empty_list_is_none_to_the_agent_and_refused(what: str) -> None:
    """It takes an empty variable for one that is not set."""
    done = helm.run(
        *("helm4", "template", "try", str(helm.CHART), "--kube-version=1.34.4"),
        f"--set-json=agent.{what}=[]",
    )
    assert done.returncode != 0
    assert f"/agent/{what}" in done.stderr


def test_every_object_is_closed_or_kubernetes_own() -> None:
    """A typo is found wherever the chart, not Kubernetes, says what is known."""
    schema = json.loads((helm.CHART / "values.schema.json").read_text())
    closed = 0

    def known(part: dict[str, Any], path: str) -> None:
        nonlocal closed
        if "properties" in part:
            closed += 1
            assert part["additionalProperties"] is False, path
            for key, each in part["properties"].items():
                known(each, f"{path}.{key}")

    known(schema, "")
    assert closed > 20


@pytest.mark.parametrize("version", helm.VERSIONS)
def test_a_chart_that_depends_on_this_one(version: str, tmp_path: Path) -> None:
    """Helm gives it `global`, and a condition among the values; both are nothing to
    us, and who sets the condition where no chart depends on this one is told.
    """
    parent = tmp_path / "parent"
    shutil.copytree(helm.CHART, parent / "charts/bigtcp-agent")
    dependency = {"name": "bigtcp-agent", "condition": "bigtcp-agent.enabled"}
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
    (parent / "Chart.yaml").write_text(
        json.dumps(chart | {"dependencies": [dependency | {"version": "*"}]})
    )
    made = {
        enabled: helm.run(
            *(version, "template", "try", str(parent), "--kube-version=1.34.4"),
            f"--set=global.registry=x,bigtcp-agent.enabled={enabled}",
        )
        for enabled in ("true", "false")
    }
    assert "kind: DaemonSet" in made["true"].stdout
    assert "kind: DaemonSet" not in made["false"].stdout
    alone = helm.run(
        *(version, "template", "try", str(helm.CHART), "--kube-version=1.34.4"),
        "--set=enabled=false",
    )
    assert alone.returncode != 0
    assert "enabled is for charts that depend on this one" in alone.stderr
