# SPDX-License-Identifier: Apache-2.0
"""What Cilium 1.15 to 1.20 say, recorded; and 1.13, by its models alone."""

import contextlib
import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent.cluster.cilium import (
    left_anything,
    read_applied,
    read_runtime_config,
)
from agent.node import _surroundings
from agent.settings import Cluster
from agent.snapshot.cilium import Applied, BigTcp, PodSizes
from agent.snapshot.datapath import as_it_runs
from agent.snapshot.model import Family
from tests.sources import agent as sources
from tests.sources.agent import VERSIONS, Answers, agent, answering, recorded

LEGACY, BIG = 65536, 196608


def of(health: Any = None, config: Any = None, endpoints: Any = None) -> Applied:
    """What is understood of these answers."""
    status = {"status": config or {}}
    return sources.understood(
        {"/v1/healthz": health or {}, "/v1/config": status, "/v1/endpoint": endpoints}
    )


def understood(answers: Answers, folder: Path) -> Applied:
    """What is understood of a recording, asked by a socket."""
    path = folder / "cilium.sock"
    with agent(path, answering(answers)):
        found = read_applied(str(path), seconds=30, wall=lambda: 7.0)
    assert found
    return found


def big(size: int) -> BigTcp:
    return BigTcp(size > LEGACY, size, size)


@pytest.mark.parametrize("version", VERSIONS)
def test_on(version: str, tmp_path: Path) -> None:
    found = understood(recorded(version)["on"], tmp_path)
    assert (found.read, found.version, found.state) == (7.0, version, "Ok")
    assert found.message == ""
    assert found.big_tcp == {Family.IPV4: big(BIG), Family.IPV6: big(BIG)}
    assert found.pod_sizes == dict.fromkeys(found.big_tcp, PodSizes(BIG, BIG))
    assert found.devices == ("eth0",)
    assert as_it_runs(found).replaces_kube_proxy
    assert (found.host_routing, found.masquerading) == ("BPF", "BPF")
    assert (found.routing_mode, found.datapath_mode) == ("native", "veth")
    assert (found.encryption, found.cni_chaining) == ("Disabled", "none")
    assert found.load_balancer_mode == "SNAT"
    assert found.device_mtu == 1500
    assert found.config.host_legacy_routing is False


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("state", ["off", "on", "on-old-pods"])
def test_pods(version: str, state: str, tmp_path: Path) -> None:
    """With their names, also after the agent has restored them."""
    found = understood(recorded(version)[state], tmp_path)
    pods = [endpoint for endpoint in found.endpoints if endpoint.is_pod]
    assert [(pod.namespace, pod.pod) for pod in pods] == [
        ("default", "p1"),
        ("default", "p2"),
    ]
    for pod in pods:
        assert pod.ifindex > 1
        assert pod.interface.startswith("lxc")
        assert [ipaddress.ip_address(each).version for each in pod.addresses] == [4, 6]
    (host,) = (endpoint for endpoint in found.endpoints if not endpoint.is_pod)
    assert (host.interface, host.pod) == ("cilium_host", "")


@pytest.mark.parametrize("known_by", ["both", "label", "device"])
def test_the_endpoint_of_health_checks_is_no_pod(known_by: str, tmp_path: Path) -> None:
    """Though it has addresses, and a device as pods have."""
    answers = recorded("1.20.2")["health"]
    (health,) = (
        each["status"]
        for each in answers["/v1/endpoint"]
        if each["status"]["identity"]["labels"] == ["reserved:health"]
    )
    assert health["networking"]["interface-name"] == "lxc_health"
    if known_by == "label":
        health["networking"]["interface-name"] = "lxc1"
    elif known_by == "device":
        health["identity"] = health["labels"] = {}
    index = health["networking"]["interface-index"]
    found = understood(answers, tmp_path)
    pods = [each.pod for each in found.endpoints if each.is_pod]
    assert pods == ["p1", "p2"]
    (endpoint,) = (each for each in found.endpoints if each.ifindex == index)
    assert len(endpoint.addresses) == 2


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("state", "ipv4", "ipv6"),
    [
        ("off", LEGACY, LEGACY),
        ("ipv4-only", BIG, LEGACY),
        ("ipv6-only", LEGACY, BIG),
    ],
)
def test_a_family_alone(
    version: str, state: str, ipv4: int, ipv6: int, tmp_path: Path
) -> None:
    found = understood(recorded(version)[state], tmp_path)
    assert found.big_tcp == {Family.IPV4: big(ipv4), Family.IPV6: big(ipv6)}
    assert found.pod_sizes[Family.IPV4] == PodSizes(ipv4, ipv4)
    assert found.pod_sizes[Family.IPV6] == PodSizes(ipv6, ipv6)
    assert (found.host_routing, found.masquerading) == ("BPF", "BPF")


@pytest.mark.parametrize("version", VERSIONS)
def test_without_ipv6(version: str, tmp_path: Path) -> None:
    found = understood(recorded(version)["ipv6-disabled"], tmp_path)
    assert found.big_tcp[Family.IPV4] == big(BIG)
    assert not found.big_tcp[Family.IPV6].enabled
    addresses = [each for pod in found.endpoints for each in pod.addresses]
    assert [each for each in addresses if ":" in each] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_legacy(version: str, tmp_path: Path) -> None:
    """Without eBPF masquerading Cilium falls back to the legacy routing."""
    found = understood(recorded(version)["legacy"], tmp_path)
    assert (found.host_routing, found.masquerading) == ("Legacy", "iptables")
    assert found.config.host_legacy_routing is True
    assert found.config.bpf_masquerade is False


@pytest.mark.parametrize("version", VERSIONS)
def test_a_failure_is_told_in_its_words(version: str, tmp_path: Path) -> None:
    """The API server is gone, or its CNI file cannot be written: all else it answers
    as before.
    """
    found = understood(recorded(version)["failure"], tmp_path)
    assert (found.state, found.version) == ("Failure", version)
    assert re.match("Kubernetes service is not|Could not write CNI", found.message)
    assert found.big_tcp[Family.IPV4] == big(BIG)


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


@pytest.mark.parametrize("version", VERSIONS)
def test_the_runtime_file(version: str, tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime-config.json"
    path.write_text(json.dumps(recorded(version)["on"]["runtime"]))
    found = read_runtime_config(str(path))
    assert found
    assert found.routing_mode == "native"
    assert found.datapath_mode == "veth"
    assert found.host_legacy_routing is False
    assert found.bpf_masquerade is True


def test_no_runtime_file(tmp_path: Path) -> None:
    assert read_runtime_config(str(tmp_path / "none")) is None
    with pytest.raises(OSError, match="directory"):
        read_runtime_config(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "[" * 100_000])
def test_a_runtime_file_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(OSError, match=r"not JSON|Expected `object`"):
        read_runtime_config(str(path))


def test_1_13() -> None:
    """By its models, not recorded: BIG TCP for IPv6 alone, and no word of it in the
    status; Tunnel is mode and protocol in one; kube-proxy's replacement is strict."""
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
    with pytest.raises(OSError, match=r"healthz: .*ipv4-big-tcp\.maxGSO: .*got `str`"):
        of({"ipv4-big-tcp": {"maxGSO": "196608"}})
    with pytest.raises(
        OSError, match=r"kube-proxy-replacement\.devices\[1\]: .*got `int`"
    ):
        of({"kube-proxy-replacement": {"devices": ["eth0", 7]}})
    with pytest.raises(OSError, match="/v1/endpoint: Expected `array"):
        of(endpoints={})
