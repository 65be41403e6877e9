# SPDX-License-Identifier: Apache-2.0
"""What Cilium 1.13 to 1.20 say, in their own words."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.cluster.answer import Answer
from agent.cluster.cilium import (
    applied,
    left_anything,
    read_applied,
    read_runtime_config,
)
from agent.node import _surroundings
from agent.settings import Cluster
from agent.snapshot.cilium import Applied, BigTcp, PodSizes
from agent.snapshot.datapath import as_it_runs
from agent.snapshot.model import Family
from tests.sources.agent import agent, answering, recorded

RECORDED = ("1.15.19", "1.20.2")


def of(health: Any = None, config: Any = None, endpoints: Any = None) -> Applied:
    """What is understood of these answers."""
    return applied(
        Answer(health or {}, "healthz"), Answer(config or {}, "config"), endpoints, 5.0
    )


@pytest.mark.parametrize("version", RECORDED)
def test_what_its_own_models_write(version: str, tmp_path: Path) -> None:
    path = tmp_path / "cilium.sock"
    with agent(path, answering(recorded(version)["on"])):
        found = read_applied(str(path), seconds=30, wall=lambda: 7.0)
    assert found
    assert (found.read, found.version, found.state) == (7.0, version, "Ok")
    assert found.message == ""
    assert found.big_tcp == {
        Family.IPV4: BigTcp(enabled=True, max_gso=196608, max_gro=196608),
        Family.IPV6: BigTcp(enabled=False, max_gso=65536, max_gro=65536),
    }
    assert found.pod_sizes == {
        Family.IPV4: PodSizes(196608, 196608),
        Family.IPV6: PodSizes(65536, 65536),
    }
    assert found.devices == ("eth0", "eth1")
    assert as_it_runs(found).replaces_kube_proxy
    assert (found.host_routing, found.masquerading) == ("BPF", "BPF")
    assert (found.routing_mode, found.datapath_mode) == ("native", "veth")
    assert (found.encryption, found.cni_chaining) == ("Disabled", "none")
    assert (found.load_balancer_mode, found.dsr_dispatch) == ("DSR", "Geneve")
    assert found.device_mtu == 1500
    assert found.config.host_legacy_routing is False
    pod, host = found.endpoints
    assert (pod.id, pod.namespace, pod.pod) == (1234, "default", "netperf-client")
    assert (pod.ifindex, pod.interface, pod.state) == (12, "lxc0123", "ready")
    assert (pod.mac, pod.host_mac) == ("5a:00:00:00:00:01", "5a:00:00:00:00:02")
    assert pod.addresses == ("10.244.1.7", "fd00:244:1::7")
    assert (host.interface, host.ifindex, host.pod) == ("cilium_host", 0, "")


@pytest.mark.parametrize("version", RECORDED)
def test_off_and_legacy(version: str, tmp_path: Path) -> None:
    path = tmp_path / "cilium.sock"
    with agent(path, answering(recorded(version)["off"])):
        found = read_applied(str(path), seconds=30)
    assert found
    assert found.big_tcp[Family.IPV4] == BigTcp(False, 65536, 65536)
    assert found.host_routing == "Legacy"
    assert found.config.host_legacy_routing is True


def test_where_cilium_never_was(tmp_path: Path) -> None:
    """The chart makes the directory where there is none; Cilium fills it."""
    where = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        asked = Cluster(f"{where}/cilium.sock", "", "", "", "")
        left = _surroundings(stack, asked, None).cilium_left
        assert not left()
        where.mkdir()
        assert not left()
        (where / "state").mkdir()
        assert left()
    assert left_anything(f"{where}/state/{'x' * 300}/cilium.sock")  # who can tell


@pytest.mark.parametrize("version", RECORDED)
def test_the_runtime_file(version: str, tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime-config.json"
    path.write_text(json.dumps(recorded(version)["runtime"]))
    os.utime(path, (1e9, 1e9))
    found = read_runtime_config(str(path))
    assert found
    assert found.written == 1e9
    assert found.config.routing_mode == "native"
    assert found.config.datapath_mode == "veth"
    assert found.config.host_legacy_routing is False
    assert found.config.bpf_masquerade is True
    assert found.config.big_tcp == {}


def test_no_runtime_file(tmp_path: Path) -> None:
    assert read_runtime_config(str(tmp_path / "none")) is None
    with pytest.raises(OSError, match="directory"):
        read_runtime_config(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "[" * 100_000])
def test_a_runtime_file_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(OSError, match="no JSON"):
        read_runtime_config(str(path))


def test_1_13() -> None:
    """BIG TCP for IPv6 alone, and no word of it in the status; Tunnel is mode and
    protocol in one; kube-proxy's replacement is strict."""
    flags = {"EnableIPv6BIGTCP": True, "Tunnel": "disabled"}
    found = of(
        {
            "cilium": {"state": "Ok", "msg": "1.13.4 (v1.13.4-4061cdfc)"},
            "host-routing": {"mode": "BPF"},
            "kube-proxy-replacement": {"mode": "Strict", "devices": ["eth0"]},
        },
        {
            "GROMaxSize": 196608,
            "GSOMaxSize": 196608,
            "daemonConfigurationMap": flags,
        },
    )
    assert found.version == "1.13.4"
    assert found.big_tcp == {
        Family.IPV4: BigTcp(),
        Family.IPV6: BigTcp(enabled=True, max_gso=196608, max_gro=196608),
    }
    assert found.pod_sizes[Family.IPV6] == PodSizes(196608, 196608)
    assert found.pod_sizes[Family.IPV4] == PodSizes(0, 0)
    assert (found.routing_mode, found.host_routing) == ("native", "BPF")
    assert as_it_runs(found).replaces_kube_proxy


@pytest.mark.parametrize(
    ("mode", "replaces"),
    [
        ("True", True),
        ("Strict", True),
        ("False", False),
        ("Partial", False),
        ("Probe", False),
        ("Disabled", False),
        (None, False),
    ],
)
def test_words_for_kube_proxy_replacement(mode: str | None, *, replaces: bool) -> None:
    found = of({"kube-proxy-replacement": {"mode": mode}})
    assert as_it_runs(found).replaces_kube_proxy is replaces


def test_1_16_moved_host_routing() -> None:
    routing = {
        "intra-host-routing-mode": "BPF",
        "inter-host-routing-mode": "Tunnel",
        "tunnel-protocol": "geneve",
    }
    found = of({"routing": routing})
    assert found.host_routing == "BPF"
    assert (found.routing_mode, found.tunnel_protocol) == ("tunnel", "geneve")


@pytest.mark.parametrize(
    ("said", "version", "message"),
    [
        ("1.16.0 (v1.16.0-c4e0fdb4)", "1.16.0", ""),
        (
            "1.19.0-rc.1 (v1.19.0-rc.1-ab)    kvstore: x\ny",
            "1.19.0-rc.1",
            "kvstore: xy",
        ),
        ("1.20.2", "1.20.2", ""),
        ("something else", "", "something else"),
        ("", "", ""),
    ],
)
def test_versions(said: str, version: str, message: str) -> None:
    found = of({"cilium": {"msg": said}})
    assert (found.version, found.message) == (version, message)


def test_absent_is_false_and_zero() -> None:
    found = of()
    assert found.big_tcp == {Family.IPV4: BigTcp(), Family.IPV6: BigTcp()}
    assert found.endpoints == ()
    assert found.devices == ()
    assert found.host_routing == found.routing_mode == found.encryption == ""
    assert found.config.ipsec is None


def test_odd_endpoints_are_left_out() -> None:
    networking = {"addressing": [{"ipv4": "10.0.0.1"}, None, {"ipv6": "no"}]}
    good = {"id": 3, "status": {"networking": networking}}
    older = {"id": 4, "status": {"external-identifiers": {"pod-name": "ns/pod"}}}
    odd = [
        {"id": "3"},
        {"id": True},
        {"id": -1},
        {"id": 5, "status": []},
        {"id": 5, "status": {"networking": {"interface-index": 1 << 40}}},
        {"id": 5, "status": {"networking": {"addressing": {}}}},
        None,
        7,
    ]
    first, second = of(endpoints=[*odd, good, older]).endpoints
    assert (first.id, first.addresses) == (3, ("10.0.0.1",))
    assert (second.namespace, second.pod) == ("ns", "pod")


def test_a_field_of_another_type_is_named() -> None:
    with pytest.raises(OSError, match=r"healthz: ipv4-big-tcp\.maxGSO is text"):
        of({"ipv4-big-tcp": {"maxGSO": "196608"}})
    with pytest.raises(OSError, match=r"kube-proxy-replacement\.devices\[1\] is a nu"):
        of({"kube-proxy-replacement": {"devices": ["eth0", 7]}})
    with pytest.raises(OSError, match="/v1/endpoint answers no list"):
        of(endpoints={})
