# SPDX-License-Identifier: Apache-2.0
"""What the devices' sizes tell, to the word."""

from dataclasses import replace

import pytest

from agent.snapshot.cilium import BigTcp, Pod
from agent.snapshot.model import DeviceId, Family, Hook, RowKey, Sizes
from agent.snapshot.verdict import State
from tests.snapshot.fakes import link
from tests.snapshot.world import DOWN, IPV4, IPV6, LEGACY, POD, UP, World


def test_a_nic_that_cannot() -> None:
    world = World()
    world.change(big_tcp=dict.fromkeys((IPV4, IPV6), BigTcp(True, LEGACY, LEGACY)))
    world.resize("eth0", replace(DOWN, tso_max=LEGACY))
    world.resize("lxc1", DOWN)
    world.silence()
    states, findings = world.told()
    assert states == [State.REFUSED, State.REFUSED]
    assert findings == ["C02 warning", "C02 warning", "C03 warning"]
    assert world.verdict.findings[-1].subjects == ("eth0",)


def test_one_device_that_spoils_it_for_all() -> None:
    world = World()
    world.add(replace(link(5, "dummy0"), sizes=replace(DOWN, tso_max=LEGACY)))
    world.change(
        devices=("eth0", "dummy0"),
        big_tcp=dict.fromkeys((IPV4, IPV6), BigTcp(True, LEGACY, LEGACY)),
    )
    world.silence()
    _, findings = world.told()
    assert findings == ["C02 warning", "C02 warning", "C04 warning"]
    assert world.verdict.findings[-1].subjects == ("dummy0",)


@pytest.mark.parametrize(
    ("least", "findings"),
    [
        (LEGACY, ["C02 warning", "C02 warning", "C04 warning"]),
        (131072, ["C03 info"]),
    ],
)
def test_devices_of_which_all_are_limited(least: int, findings: list[str]) -> None:
    """The others of an ice can no more than it, or spoil even that."""
    world = World()
    ice = Sizes(least, least, 131072, least, least)
    world.resize("eth0", ice)
    world.add(replace(link(5, "nic1"), sizes=replace(ice, tso_max=least)))
    world.change(
        devices=("eth0", "nic1"),
        big_tcp=dict.fromkeys((IPV4, IPV6), BigTcp(True, least, least)),
    )
    world.silence()
    assert world.told()[1] == findings
    expected = ("nic1",) if least == LEGACY else ("eth0", "nic1")
    assert world.verdict.findings[-1].subjects == expected


def test_a_limit_of_the_driver_that_still_is_big() -> None:
    """ice: 131,072 bytes, for both families."""
    world = World()
    ice = Sizes(131072, 131072, 131072, 131072, 131072)
    world.resize("eth0", ice)
    world.change(big_tcp=dict.fromkeys((IPV4, IPV6), BigTcp(True, 131072, 131072)))
    assert world.told() == ([State.ACTIVE, State.ACTIVE], ["C03 info"])


def test_a_pod_that_was_not_restarted() -> None:
    world = World()
    world.resize("lxc1", DOWN)
    assert world.told() == ([State.PARTIAL, State.PARTIAL], ["C06 warning"])
    (finding,) = world.verdict.findings
    assert finding.subjects == ("default/web",)
    assert finding.seen == "1 of 1 pods are still at 64 KiB"


def test_since_when_it_was_not_restarted() -> None:
    world = World()
    world.configured = True
    world.pods = (Pod("default", "web", (), False, 1767323045.0),)
    world.resize("lxc1", DOWN)
    world.told()
    seen = world.verdict.findings[0].seen
    assert seen.endswith("at 64 KiB, the oldest since 2026-01-02 03:04 UTC")


def test_a_pod_whose_own_device_was_lowered() -> None:
    """In one family."""
    world = World()
    world.traffic(POD, 3, Hook.NET_DEV_START_XMIT, IPV4, 10, 0, LEGACY)
    world.rows.pop(RowKey(DeviceId(POD, 3), Hook.NET_DEV_QUEUE, IPV4))
    assert world.told() == ([State.PARTIAL, State.ACTIVE], ["C06 warning"])
    assert world.verdict.findings[0].families == (IPV4,)


def test_a_nic_that_was_reset() -> None:
    world = World()
    world.resize("eth0", replace(UP, gso_ipv4_max=LEGACY))
    assert world.told() == ([State.PARTIAL, State.ACTIVE], ["C07 warning"])


@pytest.mark.parametrize(
    ("sizes", "families"),
    [
        (replace(UP, gso_max=100_000, gso_ipv4_max=100_000), [IPV4, IPV6]),
        (replace(UP, gro_max=100_000), [IPV6]),
    ],
)
def test_a_nic_that_was_lowered_and_still_is_big(
    sizes: Sizes, families: list[Family]
) -> None:
    """No reason to call it partial: packets are big, if not as big as they could be."""
    world = World()
    world.resize("eth0", sizes)
    assert world.told() == (
        [State.ACTIVE, State.ACTIVE],
        ["C07 warning"] * len(families),
    )
    for finding, family in zip(world.verdict.findings, families, strict=True):
        assert finding.families == (family,)
        assert "has set gso 196,608" in finding.seen
        assert "100,000" in finding.seen


@pytest.mark.parametrize(("kind", "findings"), [("veth", ["C19 info"]), ("netkit", [])])
def test_pods_from_before_netkit(kind: str, findings: list[str]) -> None:
    world = World()
    world.change(datapath_mode="netkit")
    world.links["lxc1"] = replace(world.links["lxc1"], kind=kind)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], findings)
