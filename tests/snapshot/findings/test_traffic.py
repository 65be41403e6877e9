# SPDX-License-Identifier: Apache-2.0
"""What the traffic tells: cut, dropped, not big, not merged."""

from dataclasses import replace

import pytest

from agent.snapshot.model import DeviceId, Family, Hook, RowKey
from agent.snapshot.verdict import State
from tests.snapshot.fakes import OURS
from tests.snapshot.world import BIG, IPV4, IPV6, LEGACY, POD, PORT, UP, UPLINK, World


def test_traffic_but_nothing_big() -> None:
    world = World()
    world.silence()
    world.traffic(OURS, UPLINK, Hook.NET_DEV_START_XMIT, IPV6, 10_000, 0, BIG)
    assert world.told() == ([State.IDLE, State.IDLE], ["C14 info"])


@pytest.mark.parametrize("limit", [LEGACY, 90_000])
def test_a_bridge_outside_our_namespace_that_cuts(limit: int) -> None:
    world = World()
    for family in (IPV4, IPV6):
        world.cut(PORT, 11, family, limit)
    assert world.told() == ([State.SEGMENTED, State.SEGMENTED], ["C09 critical"])
    (finding,) = world.verdict.findings
    assert finding.subjects == ("port1 (netns 4026530070)",)
    assert finding.families == (IPV4, IPV6)
    assert finding.remedy.startswith("raise gso_max_size and gso_ipv4_max_size")


def test_a_foreign_device_whose_rows_may_be_others_too() -> None:
    """Where the kernel does not introduce it, what it sent may stand in the row that
    such devices share: that it sent nothing big is no evidence."""
    world = World()
    world.cut(PORT, 11, IPV4, LEGACY)
    for at, device in world.devices.items():
        if at.netns == PORT:
            world.devices[at] = replace(device, device=None)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], [])


@pytest.mark.parametrize("netns", [OURS, POD, PORT])
def test_a_kernel_that_compares_ipv4_with_the_limit_of_ipv6(netns: int) -> None:
    """At an uplink its link tells of IPv6, elsewhere what passed."""
    world = World()
    world.only(IPV4)
    world.resize("eth0", replace(UP, gso_max=LEGACY))
    world.rows = {key: row for key, row in world.rows.items() if key.family is IPV4}
    if netns != OURS:
        world.traffic(netns, 2, Hook.NET_DEV_START_XMIT, IPV6, 10, 0, LEGACY)
    world.cut(netns, 2, IPV4, BIG)
    assert world.told() == ([State.SEGMENTED, State.DISABLED], ["C08 critical"])
    assert world.verdict.findings[0].families == (IPV4,)


@pytest.mark.parametrize("family", [IPV4, IPV6])
@pytest.mark.parametrize("netns", [OURS, PORT])
def test_a_device_that_cannot_segment(netns: int, family: Family) -> None:
    """Its limits are well: nobody has to raise them, and no kernel is wrong."""
    world = World()
    world.cut(netns, 2, family, BIG)
    states, findings = world.told()
    assert states.count(State.SEGMENTED) == 1
    assert findings == ["C09 critical"]
    (finding,) = world.verdict.findings
    assert "ethtool -k" in finding.remedy
    assert ("gso_max_size" in finding.remedy) is (netns == PORT and family is IPV4)


def test_the_command_names_the_device_and_nothing_else() -> None:
    """A container may call its device what a shell would run; and one that is gone has
    no name any more.
    """
    world = World()
    world.cut(PORT, 11, IPV6, BIG)
    world.cut(OURS, UPLINK, IPV6, BIG)
    for at, device in world.devices.items():
        if at.netns == PORT and device.device:
            known = replace(device.device, name="$(reboot)")
            world.devices[at] = replace(device, name="$(reboot)", device=known)
        elif at == DeviceId(OURS, UPLINK):
            world.devices[at] = replace(
                device, name="ifindex:2", device=None, link=None
            )
    world.told()
    told = {each.subjects: each.remedy for each in world.verdict.findings}
    port, uplink = ("$(reboot) (netns 4026530070)",), ("ifindex:2",)
    where = f"in the namespace of {port[0]}"
    assert told[port].endswith(f"; see {where}: ethtool -k '$(reboot)'")
    assert told[uplink] == "tcp-segmentation-offload must be on"


def test_a_limit_of_ipv6_that_was_seen_long_ago() -> None:
    """It may be another now: no reason to lay it to the kernel."""
    world = World()
    world.traffic(PORT, 11, Hook.NET_DEV_START_XMIT, IPV6, 10, 0, LEGACY)
    world.rows.pop(RowKey(DeviceId(PORT, 11), Hook.NET_DEV_START_XMIT, IPV6))
    world.cut(PORT, 11, IPV4, BIG)
    assert world.told()[1] == ["C09 critical"]


def test_the_mistake_of_the_kernel_does_not_concern_ipv6() -> None:
    """Its limit was lowered since."""
    world = World()
    world.resize("eth0", replace(UP, gso_max=LEGACY))
    world.cut(OURS, UPLINK, IPV6, BIG)
    assert world.told()[1] == ["C07 warning", "C09 critical"]


def test_what_was_longer_once_does_not_count() -> None:
    """`longest` is since the agent began; the slots are of late."""
    world = World()
    world.cut(PORT, 11, IPV4, BIG)
    key = RowKey(DeviceId(PORT, 11), Hook.NET_DEV_QUEUE, IPV4)
    world.rows[key] = replace(world.rows[key], longest=500_000)
    world.told()
    assert "ethtool -k" in world.verdict.findings[0].remedy


def test_a_pod_whose_device_cuts() -> None:
    world = World()
    world.cut(POD, 3, IPV4, BIG)
    assert world.told() == ([State.SEGMENTED, State.ACTIVE], ["C09 critical"])
    assert world.verdict.findings[0].subjects == ("eth0 of default/web",)
    world.change(endpoints=())
    world.told()
    assert world.verdict.findings[0].subjects == ("eth0 (netns 4026530040)",)


def test_where_nobody_sees_what_is_sent_nothing_is_cut() -> None:
    world = World()
    del world.rows[RowKey(DeviceId(OURS, UPLINK), Hook.NET_DEV_START_XMIT, IPV4)]
    world.traffic(OURS, UPLINK, Hook.NET_DEV_QUEUE, IPV4, 0, 1000, BIG)
    assert world.told()[0][0] is State.SEGMENTED
    world.attached[Hook.NET_DEV_START_XMIT] = False
    assert world.told()[0][0] is State.ACTIVE


def test_a_few_packets_in_a_qdisc_are_no_cut() -> None:
    world = World()
    world.traffic(OURS, UPLINK, Hook.NET_DEV_QUEUE, IPV4, 0, 1003, BIG)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], [])


def test_ipv6_that_is_too_big_to_forward() -> None:
    world = World()
    world.change(host_routing="Legacy")
    world.too_big = 40
    assert world.told() == (
        [State.ACTIVE, State.DROPPED],
        ["C05 critical", "C13 critical"],
    )


def test_ipv6_that_is_too_big_for_who_knows_whose_routing() -> None:
    """There is no Cilium."""
    world = World()
    world.applied, world.left = None, False
    world.too_big = 40
    assert world.told() == ([State.UNMANAGED, State.DROPPED], ["C13 critical"])


@pytest.mark.parametrize(
    ("host_routing", "too_big", "findings"),
    [("BPF", 40, []), ("Legacy", 9, ["C05 critical"]), ("", 9, [])],
)
def test_path_mtu_discovery_drops_nothing(
    host_routing: str, too_big: int, findings: list[str]
) -> None:
    world = World()
    world.change(host_routing=host_routing)
    world.too_big = too_big
    assert world.told() == ([State.ACTIVE, State.ACTIVE], findings)


def test_too_big_without_big_packets_is_no_matter_of_big_tcp() -> None:
    world = World()
    world.change(host_routing="Legacy")
    world.silence()
    world.too_big = 40
    assert world.told() == ([State.IDLE, State.IDLE], ["C05 critical"])


@pytest.mark.parametrize(
    ("mtu", "length", "count", "findings"),
    [
        (1500, 1500, 20_000, ["C15 info"]),
        (9000, 9000, 2_000, ["C15 info"]),
        (1450, 1450, 20_000, ["C15 info"]),
        (1 << 20, 9000, 2_000, ["C15 info"]),  # more than our last edge
        (1500, 52, 200_000, []),  # the acknowledgements of a pure sender
        (1500, 1500, 1_000, []),  # too few to tell
        (1500, 9000, 20_000, []),  # by LRO, say: nobody tells the segments
    ],
)
def test_nothing_is_merged(
    mtu: int, length: int, count: int, findings: list[str]
) -> None:
    world = World()
    world.links["eth0"] = replace(world.links["eth0"], mtu=mtu)
    world.traffic(
        OURS, UPLINK, Hook.NETIF_RECEIVE_SKB, IPV4, count, 0, BIG, length=length
    )
    assert world.told() == ([State.ACTIVE, State.ACTIVE], findings)


def test_where_something_is_merged_gro_is_on() -> None:
    world = World()
    world.traffic(OURS, UPLINK, Hook.NETIF_RECEIVE_SKB, IPV4, 20_000, 0, BIG)
    key = RowKey(DeviceId(OURS, UPLINK), Hook.NETIF_RECEIVE_SKB, IPV4)
    world.rows[key] = replace(world.rows[key], segments=20_100)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], [])


def test_what_was_cut_on_its_way_is_no_fault_of_gro() -> None:
    world = World()
    world.traffic(OURS, UPLINK, Hook.NETIF_RECEIVE_SKB, IPV4, 20_000, 0, BIG)
    world.traffic(PORT, 11, Hook.NET_DEV_QUEUE, IPV4, 0, 1000, LEGACY)
    assert world.told() == ([State.SEGMENTED, State.ACTIVE], ["C09 critical"])
