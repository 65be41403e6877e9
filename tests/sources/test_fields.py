# SPDX-License-Identifier: Apache-2.0
"""What our tests make up for Cilium has no field that Cilium's own agent lacks."""

from typing import Any

import pytest

from tests import test_truth
from tests.charts import stand
from tests.sources import test_pod_names
from tests.sources.agent import URLS, VERSIONS, fields, fields_of, pod_endpoint

KNOWN = fields_of("1.20.2")


def made_up() -> dict[str, dict[str, Any]]:
    """Answers of Cilium 1.20 that a test makes or changes, by who makes them."""

    class Space:
        name = "p1"

    class Pod:
        space, host, device = Space, 7, "lxc7"
        addresses = dict.fromkeys(("ipv4", "ipv6"), "")

    class Node:
        pods = (Pod,)

    one = pod_endpoint(7, "default", "p1", **{"interface-index": 7})
    node: Any = Node
    return {
        "pod_endpoint": {"/v1/endpoint": [one]},
        "charts": stand.words(node, stand.BIG),
        "test_pod_names": {"/v1/endpoint": [test_pod_names.endpoint()]},
        "test_truth": test_truth.words(["eth0"], {"ipv4": 196608}),
    }


@pytest.mark.parametrize("maker", sorted(made_up()))
def test_no_field_is_invented(maker: str) -> None:
    answers = made_up()[maker]
    found = set().union(*(fields(answers[url], url) for url in URLS if url in answers))
    assert found
    assert found - KNOWN == set()


def test_pods_of_1_20_have_no_name_in_their_identifiers() -> None:
    """So none that we make up may have one."""
    identifiers = "/v1/endpoint[].status.external-identifiers"
    named = {f"{identifiers}.{key}" for key in ("k8s-namespace", "k8s-pod-name")}
    assert KNOWN & named == set()
    assert f"{identifiers}.cni-attachment-id" in KNOWN


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_has_what_we_read(version: str) -> None:
    assert {
        "/v1/healthz.cilium.msg",
        "/v1/healthz.kube-proxy-replacement.devices",
        "/v1/config.status.GSOIPv4MaxSize",
        "/v1/config.status.daemonConfigurationMap.EnableBPFMasquerade",
        "/v1/endpoint[].status.networking.interface-index",
        "/v1/endpoint[].status.controllers[].name",
    } <= fields_of(version)
