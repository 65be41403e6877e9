# SPDX-License-Identifier: Apache-2.0
"""Node configs that select this node, and its pods."""

from typing import Any

import pytest

from agent.cluster.api import Json
from agent.cluster.wanted import Cluster
from agent.cluster.watch import Watch
from agent.snapshot.cilium import Pod
from tests.sources.fakes import (
    CONFIG_MAPS,
    NODE_CONFIGS,
    FakeApi,
    cluster_of,
    config_map,
)


def node_configs_of(api: FakeApi) -> Cluster:
    """Its node configs read once, and its ConfigMap."""
    cluster = cluster_of(api, "n1", pods=True)
    cluster._api = api
    for name, resource, seen in (
        ("configmap", cluster._config_maps(), cluster._config_seen),
        ("nodeconfigs", cluster._node_configs(), cluster._node_configs_seen),
        ("pods", cluster._pods(), lambda: None),
    ):
        cluster._reachable.set()
        watch: Watch[Any] = cluster._watch(api, resource, seen)
        cluster._watches[name] = watch
        api.now = api.end - 1
        watch.run()
    return cluster


def node_config(name: str, selector: Any, **defaults: str) -> Json:
    spec = {"nodeSelector": selector, "defaults": config_map(**defaults)["data"]}  # type: ignore[arg-type]
    return {"metadata": {"name": name, "resourceVersion": "1"}, "spec": spec}


@pytest.mark.parametrize("version", ["v2", "v2alpha1"])
def test_node_configs(version: str) -> None:
    api = FakeApi()
    api.objects[CONFIG_MAPS] = [config_map(mtu="1500", routing_mode="native")]
    api.objects[NODE_CONFIGS.format(version)] = [
        node_config("b", {"matchLabels": {"zone": "a"}}, mtu="9000"),
        node_config("a", {}, mtu="1400", enable_ipv6_big_tcp="true"),
        node_config("c", {"matchLabels": {"zone": "z"}}, mtu="1"),
        node_config("d", None, mtu="2"),
        {"metadata": {"name": "e"}, "spec": {"nodeSelector": 7, "defaults": []}},
    ]
    api.others["/api/v1/nodes/n1"] = {"metadata": {"labels": {"zone": "a"}}}
    state = node_configs_of(api).state()
    assert state.wanted
    assert state.wanted.values == {
        "mtu": "9000",
        "routing-mode": "native",
        "enable-ipv6-big-tcp": "true",
    }
    assert state.wanted.overridden == {"mtu": "b", "enable-ipv6-big-tcp": "a"}
    assert state.wanted.changed is None
    assert state.sources["nodeconfigs"].up


@pytest.mark.parametrize("code", [403, 404])
def test_no_node_configs_is_no_failure(code: int) -> None:
    api = FakeApi()
    api.refused = dict.fromkeys(map(NODE_CONFIGS.format, ("v2", "v2alpha1")), code)
    state = node_configs_of(api).state()
    assert state.wanted
    assert state.sources["nodeconfigs"].errors == 0
    assert f"({code})" in state.problems["nodeconfigs"]


def test_node_configs_without_the_right_to_the_node() -> None:
    """Whether they select this node cannot be told: that is a failure."""
    api = FakeApi()
    selector = {"matchLabels": {"zone": "a"}}
    api.objects[NODE_CONFIGS.format("v2")] = [node_config("a", selector, mtu="1")]
    api.refused["/api/v1/nodes/n1"] = 403
    state = node_configs_of(api).state()
    assert state.wanted
    assert state.wanted.values == {}
    assert state.sources["nodeconfigs"].errors >= 1
    assert "(403)" in state.problems["nodeconfigs"]


def test_pods() -> None:
    def pod(name: str, **status: Any) -> Json:
        metadata = {"name": name, "namespace": "default", "resourceVersion": "1"}
        return {"metadata": metadata, "spec": {}, "status": status}

    api = FakeApi()
    ips = [{"ip": "10.0.0.7"}, {"ip": "FD00:0::7"}, {}]
    started = "2026-01-02T03:04:05Z"
    host = pod("host", podIPs=None)
    host["spec"] = {"hostNetwork": True}
    api.objects["/api/v1/pods"] = [
        pod("web", podIPs=ips, startTime=started, phase="Running"),
        pod("done", podIPs=ips, phase="Succeeded"),
        host,
    ]
    assert node_configs_of(api).state().pods == (
        Pod("default", "host", (), host_network=True, started=None),
        Pod("default", "web", ("10.0.0.7", "fd00::7"), False, 1767323045.0),
    )
