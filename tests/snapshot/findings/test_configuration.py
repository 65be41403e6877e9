# SPDX-License-Identifier: Apache-2.0
"""What the configuration tells: Cilium's, as it runs and as it is wanted."""

from dataclasses import replace
from typing import Any

import pytest

from agent.snapshot.cilium import BigTcp
from agent.snapshot.model import Sizes
from agent.snapshot.verdict import State
from tests.snapshot.fakes import link
from tests.snapshot.world import BEFORE, BIG, DOWN, IPV4, IPV6, LEGACY, UP, World


@pytest.mark.parametrize(
    ("kernel", "sizes", "states"),
    [
        ("6.1", Sizes(BIG, BIG, 524280, None, None), [State.UNSUPPORTED, State.ACTIVE]),
        ("5.15", Sizes(LEGACY, LEGACY, None, None, None), [State.UNSUPPORTED] * 2),
    ],
)
def test_a_kernel_that_is_too_old(
    kernel: str, sizes: Sizes, states: list[State]
) -> None:
    world = World()
    world.resize("eth0", sizes)
    world.resize("lxc1", sizes)
    if states[1] is State.UNSUPPORTED:
        world.silence()
    told, findings = world.told()
    assert told == states, kernel
    assert findings == ["C01 warning"] * states.count(State.UNSUPPORTED)


def test_gro_that_was_not_raised() -> None:
    world = World()
    world.change(big_tcp={IPV4: BigTcp(True, BIG, LEGACY), IPV6: BigTcp(True, BIG, 0)})
    world.resize("eth0", replace(UP, gro_ipv4_max=LEGACY))
    assert world.told() == ([State.ACTIVE, State.ACTIVE], ["C02 warning"])
    assert "GRO with 65,536" in world.verdict.findings[0].seen


@pytest.mark.parametrize(
    "fields",
    [
        {"host_routing": "Legacy"},
        {"masquerading": "iptables"},
        {"kube_proxy_replacement": "False"},
        {"routing_mode": "tunnel", "version": "1.16.3"},
        {"routing_mode": "tunnel", "version": "1.9.1"},
    ],
)
def test_what_it_needs(fields: dict[str, str]) -> None:
    world = World()
    world.change(**fields)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], ["C05 critical"])


@pytest.mark.parametrize(
    "version",
    [
        *("1.19.0", "1.19.0-pre.4", "1.20.2", "2.0.0", ""),
        *("9" * 5000 + ".1.0", "1." + "9" * 5000),  # int() refuses these
    ],
)
def test_a_tunnel_that_may_be_big(version: str) -> None:
    world = World()
    world.change(routing_mode="tunnel", version=version)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], [])


@pytest.mark.parametrize(
    ("version", "tso_max", "findings"),
    [
        ("1.19.2", LEGACY, ["C10 warning"]),
        ("1.18.6", LEGACY, []),
        ("1.20.2", LEGACY, []),
        ("1.19.2", 524280, []),
    ],
)
def test_a_tunnel_that_cilium_1_19_chokes_on(
    version: str, tso_max: int, findings: list[str]
) -> None:
    world = World()
    world.change(version=version)
    world.add(replace(link(6, "cilium_vxlan"), sizes=replace(DOWN, tso_max=tso_max)))
    assert world.told() == ([State.ACTIVE, State.ACTIVE], findings)


@pytest.mark.parametrize(
    ("dispatch", "findings"),
    [("IPIP", ["C10 warning"]), ("Geneve", []), ("IP Option/Extension", [])],
)
def test_tunnels_of_dsr(dispatch: str, findings: list[str]) -> None:
    world = World()
    world.change(dsr_dispatch=dispatch, version="1.18.6")
    assert world.told() == ([State.ACTIVE, State.ACTIVE], findings)


def test_cilium_was_not_restarted() -> None:
    world = World()
    world.configured = True
    world.only()
    world.resize("eth0", DOWN)
    world.resize("lxc1", DOWN)
    world.silence()
    assert world.told() == (
        [State.REFUSED, State.REFUSED],
        ["C12 warning"] * 2,
    )


@pytest.mark.parametrize(
    ("values", "findings"),
    [
        ({}, []),
        ({"enable-host-legacy-routing": "true"}, ["C05 critical"]),
        ({"enable-host-legacy-routing": "false"}, []),
        ({"routing-mode": "tunnel"}, ["C05 critical"]),
        ({"tunnel": "vxlan"}, ["C05 critical"]),
        ({"tunnel": "disabled"}, []),
        ({"kube-proxy-replacement": "false"}, ["C05 critical"]),
        ({"kube-proxy-replacement": "strict"}, []),
        ({"enable-ipv4-masquerade": "true"}, ["C05 critical"]),
        ({"enable-ipv4-masquerade": "true", "enable-bpf-masquerade": "true"}, []),
        ({"enable-ipsec": "true"}, ["C18 critical"]),
        ({"bpf-lb-dsr-dispatch": "ipip"}, ["C10 warning"]),
        ({"bpf-lb-dsr-dispatch": "geneve"}, ["C10 warning"]),
        ({"bpf-lb-dsr-dispatch": "opt"}, []),
    ],
    ids=str,
)
def test_a_configuration_that_cilium_refuses(
    values: dict[str, str], findings: list[str]
) -> None:
    """Its agent ends, and its socket with it: only the configuration tells why."""
    world = World()
    world.mute(DOWN)
    world.values = values
    world.runtime = BEFORE
    states, told = world.told()
    assert states == [State.REFUSED, State.REFUSED]
    assert told == ["C22 warning", *findings]


def test_a_tunnel_is_no_reason_where_it_can_be_big() -> None:
    world = World()
    world.mute(DOWN)
    world.values = {"routing-mode": "tunnel", "bpf-lb-dsr-dispatch": "geneve"}
    world.add(replace(link(6, "cilium_geneve"), sizes=DOWN))
    assert world.told()[1] == ["C22 warning"]


@pytest.mark.parametrize(
    ("left", "finding"),
    [
        ({"host_legacy_routing": True}, "C05 critical"),
        ({"routing_mode": "tunnel"}, "C05 critical"),
        ({"ipsec": True}, "C18 critical"),
    ],
    ids=str,
)
def test_an_agent_that_is_mute_left_a_file_behind(
    left: dict[str, Any], finding: str
) -> None:
    """There is no API server. Up to Cilium 1.14 the file has the flags."""
    world = World()
    world.mute(DOWN)
    world.configured = None
    flags = {IPV4: True, IPV6: False}
    world.runtime = replace(BEFORE, big_tcp=flags, **left)
    states, told = world.told()
    assert states == [State.REFUSED, State.DISABLED]
    assert told == ["C22 warning", finding]


def test_a_file_that_is_older_than_the_configuration() -> None:
    world = World()
    world.mute(DOWN)
    flags = {IPV4: False, IPV6: False}
    world.runtime = replace(BEFORE, big_tcp=flags)
    assert world.told()[1] == ["C22 warning", "C12 warning", "C12 warning"]


def test_an_agent_that_answers_no_more() -> None:
    """What it said last is kept, and no longer counts."""
    world = World()
    world.change(big_tcp=dict.fromkeys((IPV4, IPV6), BigTcp()))
    said = world.applied
    world.mute(DOWN)
    world.applied, world.answers = said, False
    world.values = {"enable-host-legacy-routing": "true"}
    states, told = world.told()
    assert states == [State.REFUSED, State.REFUSED]
    assert told == ["C22 warning", "C05 critical", "C12 warning", "C12 warning"]


def test_a_mute_agent_on_a_node_that_is_big() -> None:
    """It refuses to start anew; its devices and programs are still there."""
    world = World()
    rows = world.rows
    world.mute()
    world.rows = rows
    world.values = {"enable-host-legacy-routing": "true", "routing-mode": "tunnel"}
    assert world.told() == (
        [State.ACTIVE, State.ACTIVE],
        ["C22 warning", "C05 critical"],
    )
    assert "tunnel" in world.verdict.findings[1].seen  # asked for, and no device is up


def test_while_it_answers_the_configuration_is_not_asked() -> None:
    world = World()
    world.configured = True
    world.values = {"enable-host-legacy-routing": "true", "enable-ipsec": "true"}
    world.runtime = replace(BEFORE, ipsec=True)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], [])


@pytest.mark.parametrize(
    ("encryption", "version", "findings"),
    [
        ("IPsec", "1.20.2", ["C18 critical"]),
        ("Wireguard", "1.14.3", ["C18 critical"]),
        ("Wireguard", "1.20.2", []),
        ("Wireguard", "", []),
        ("Ztunnel", "1.20.2", []),
    ],
)
def test_encryption(encryption: str, version: str, findings: list[str]) -> None:
    world = World()
    world.change(encryption=encryption, version=version)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], findings)
