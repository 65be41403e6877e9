# SPDX-License-Identifier: Apache-2.0
"""Every ci values file of the chart is accepted by a real API server, strictly."""

from pathlib import Path

import pytest

from tests.chart import helm
from tests.cluster_api.server import ApiServer

# Kinds of operators, whose schemas no API server brings.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "CiliumClusterwideNetworkPolicy"}


@pytest.fixture(scope="session")
def with_namespaces(server: ApiServer) -> ApiServer:
    for name in ("agents", "cilium"):
        server.kubectl(f"create namespace {name}")
    return server


@pytest.mark.parametrize("values", helm.VALUES, ids=lambda path: path.stem)
def test_dry_run(with_namespaces: ApiServer, values: Path) -> None:
    objects = helm.template(f"--values={values}")
    known = [each for each in objects if each["kind"] not in FOREIGN]
    said = with_namespaces.kubectl(
        "create --dry-run=server --validate=strict --output=name --filename=-",
        manifest={"apiVersion": "v1", "kind": "List", "items": known},
    )
    assert len(said.splitlines()) == len(known) > 2


def test_what_is_unknown_is_refused(with_namespaces: ApiServer) -> None:
    """Or the dry run would prove nothing."""
    daemon = helm.one(helm.template(), "DaemonSet")
    helm.container(daemon)["securityContext"]["capabilites"] = {}
    with pytest.raises(AssertionError, match="unknown field"):
        with_namespaces.kubectl(
            "create --dry-run=server --validate=strict --filename=-", manifest=daemon
        )
