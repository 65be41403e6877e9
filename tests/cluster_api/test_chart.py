# SPDX-License-Identifier: Apache-2.0
"""Every ci values file of the chart is accepted by real API servers, strictly: the
oldest that the chart is for, the cluster's, the newest. They know the operators' kinds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.lab.netns import wait_until
from tests.chart import helm
from tests.cluster_api.server import BIN, ApiServer

SERVERS = {
    "1.30": "kube-apiserver-1.30",
    "1.34": "kube-apiserver",
    "1.37": "kube-apiserver-1.37",
}
OPERATOR = helm.CHART / "ci/operator-values.yaml"
FOREIGN = {
    "servicemonitors.monitoring.coreos.com",
    "prometheusrules.monitoring.coreos.com",
    "ciliumclusterwidenetworkpolicies.cilium.io",
}
DRY_RUN = "create --dry-run=server --validate=strict --output=name --filename=-"


def served(api: ApiServer) -> set[str]:
    return set(api.kubectl("api-resources --output=name").split())


@pytest.fixture(scope="module", params=SERVERS)
def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    folder = tmp_path_factory.mktemp("api")
    made = ApiServer(folder, program=SERVERS[request.param])
    try:
        made.start()
        for name in ("agents", "cilium", "monitoring"):
            made.kubectl(f"create namespace {name}")
        made.kubectl(f"create --filename={BIN}/operators.yaml")
        wait_until(lambda: served(made) >= FOREIGN, "the operators' kinds")
        yield made
    finally:
        made.stop()


def rendered(api: ApiServer, *flags: str) -> list[helm.Object]:
    """As Helm makes it for this server."""
    said = json.loads(api.kubectl("version --output=json"))["serverVersion"]
    return helm.template(*flags, f"--kube-version={said['gitVersion']}")


@pytest.mark.parametrize("values", helm.VALUES, ids=lambda path: path.stem)
def test_dry_run(api: ApiServer, values: Path) -> None:
    objects = rendered(api, f"--values={values}")
    said = api.kubectl(DRY_RUN, manifest=helm.as_list(objects))
    assert len(said.splitlines()) == len(objects) > 2


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("DaemonSet", ("spec", "template", "spec", "containers", 0)),
        ("ServiceMonitor", ("spec", "endpoints", 0)),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0)),
        ("CiliumClusterwideNetworkPolicy", ("spec", "ingress", 0)),
    ],
)
def test_what_is_unknown_is_refused(
    api: ApiServer, kind: str, where: tuple[str | int, ...]
) -> None:
    """Or the dry run would prove nothing."""
    found = helm.one(rendered(api, f"--values={OPERATOR}"), kind)
    part: Any = found
    for step in where:
        part = part[step]
    part["mispelt"] = []
    with pytest.raises(AssertionError, match=r"unknown field .*mispelt"):
        api.kubectl(DRY_RUN, manifest=found)
