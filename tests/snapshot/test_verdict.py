# SPDX-License-Identifier: Apache-2.0
"""Exactly this verdict and these findings, with these severities: `check` ends with
exit code 5 where one is above info.
"""

import itertools
import re
from bisect import bisect_left
from dataclasses import replace
from typing import Any

import pytest

from agent.kernel.contract import Contract, bpf_directory
from agent.snapshot.cilium import (
    Applied,
    BigTcp,
    ClusterState,
    DaemonConfig,
    Endpoint,
    Pod,
    RuntimeConfig,
    Wanted,
)
from agent.snapshot.evidence import Evidence
from agent.snapshot.findings import FINDING_IDS, FINDINGS
from agent.snapshot.findings.finding import Finding, Severity
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import (
    Device,
    DeviceId,
    Family,
    Hook,
    Lengths,
    Link,
    Row,
    RowKey,
    Scope,
    Sizes,
    Source,
)
from agent.snapshot.snapshot import DeviceRows, Recent, Snapshot
from agent.snapshot.verdict import State, judge
from tests.snapshot.fakes import OURS, link

EDGES = Contract.read(bpf_directory()).edges

BIG, LEGACY = 196608, 65536
UP = Sizes(BIG, BIG, 524280, BIG, BIG)
DOWN = Sizes(LEGACY, LEGACY, 524280, LEGACY, LEGACY)
IPV4, IPV6 = Family.IPV4, Family.IPV6
POD, HOST_SIDE, UPLINK, PORT = 40, 9, 2, 70  # netns, ifindexes, a foreign netns


def counted(small: int, big: int, length: int = 1000) -> Lengths:
    """`small` skbs of `length` bytes and `big` of 100,000."""
    slots = [0] * (len(EDGES) + 1)
    slots[bisect_left(EDGES, length)] += small
    slots[bisect_left(EDGES, 100_000)] += big
    size = length * small + 100_000 * big
    return Lengths(
        Histogram(EDGES, tuple(slots), size, 100_000 * big),
        segments=small + 69 * big,
        longest=100_000 if big else length,
    )


class World:
    """A node where all is well; a test changes what is not."""

    def __init__(self) -> None:
        self.links = {
            "eth0": replace(link(UPLINK, "eth0", in_subnet=True), sizes=UP),
            "lxc1": replace(link(HOST_SIDE, "lxc1"), sizes=UP, kind="veth", netnsid=0),
        }
        self.applied: Applied | None = Applied(
            read=0,
            version="1.20.2",
            state="Ok",
            message="",
            big_tcp={family: BigTcp(True, BIG, BIG) for family in (IPV4, IPV6)},
            pod_sizes={},
            devices=("eth0",),
            kube_proxy_replacement="True",
            host_routing="BPF",
            masquerading="BPF",
            routing_mode="native",
            tunnel_protocol="",
            encryption="Disabled",
            datapath_mode="veth",
            attach_mode="tcx",
            cni_chaining="",
            load_balancer_mode="SNAT",
            dsr_dispatch="",
            device_mtu=1500,
            config=DaemonConfig({}, "", "", None, None, None, None),
            endpoints=(
                Endpoint(1, "ready", HOST_SIDE, "lxc1", "", "", (), "default", "web"),
            ),
        )
        self.configured: bool | None = None
        self.values: dict[str, str] = {}  # the rest of the ConfigMap
        self.answers = self.left = True
        self.pods: tuple[Pod, ...] | None = None
        self.runtime: RuntimeConfig | None = None
        self.too_big = 0
        self.attached = dict.fromkeys(Hook, True)
        self.rows: dict[RowKey, Lengths] = {}
        self.devices: dict[DeviceId, DeviceRows] = {}
        for family in (IPV4, IPV6):
            self.traffic(POD, 3, Hook.NET_DEV_START_XMIT, family, 10, 1000, BIG)
            self.traffic(POD, 3, Hook.NET_DEV_QUEUE, family, 0, 1000, BIG)
            self.traffic(OURS, UPLINK, Hook.NET_DEV_START_XMIT, family, 10, 1000, BIG)
            self.traffic(OURS, UPLINK, Hook.NETIF_RECEIVE_SKB, family, 10, 1000, BIG)

    def traffic(  # noqa: PLR0917  a row of a table
        self,
        netns: int,
        ifindex: int,
        hook: Hook,
        family: Family,
        small: int,
        big: int,
        limit: int,
        length: int = 1000,
    ) -> None:
        at = DeviceId(netns, ifindex)
        key = RowKey(at, hook, family)
        lengths = counted(small, big, length)
        self.rows[key] = lengths
        scope = {OURS: Scope.NODE, POD: Scope.PODS}.get(netns, Scope.OTHER)
        peer = DeviceId(OURS, HOST_SIDE) if scope is Scope.PODS else None
        names = {UPLINK: "eth0", HOST_SIDE: "lxc1", 3: "eth0"}
        name = names.get(ifindex, "port1")
        before = self.devices.get(at)
        rows = before.rows if before else {}
        self.devices[at] = DeviceRows(
            at,
            name,
            scope,
            "",
            Device(at, 4026530000 + netns, name, "veth", "", peer),
            self.links.get(name) if scope is Scope.NODE else None,
            rows | {(hook, family): Row(key, lengths, limit)},
        )

    def cut(self, netns: int, ifindex: int, family: Family, limit: int) -> None:
        """A device where 1,000 big skbs were queued, and left in pieces."""
        self.traffic(netns, ifindex, Hook.NET_DEV_QUEUE, family, 0, 1000, limit)
        self.traffic(netns, ifindex, Hook.NET_DEV_START_XMIT, family, 69000, 0, limit)

    def silence(self) -> None:
        self.rows = {}

    def only(self, *families: Family) -> None:
        assert self.applied
        self.applied = replace(
            self.applied,
            big_tcp={
                family: BigTcp(True, BIG, BIG) if family in families else BigTcp()
                for family in (IPV4, IPV6)
            },
        )

    def change(self, **fields: Any) -> None:
        assert self.applied
        self.applied = replace(self.applied, **fields)

    def resize(self, name: str, sizes: Sizes) -> None:
        self.links[name] = replace(self.links[name], sizes=sizes)
        for at, device in self.devices.items():
            if device.link and device.name == name:
                self.devices[at] = replace(device, link=self.links[name])

    def mute(self, *sizes: Sizes) -> None:
        """BIG TCP is wanted, and Cilium has no socket any more."""
        self.applied = None
        self.configured = True
        self.silence()
        for size in sizes:
            self.resize("eth0", size)
            self.resize("lxc1", size)

    def add(self, new: Link) -> None:
        self.links[new.name] = new

    def told(self) -> tuple[list[State], list[str]]:
        cluster = None
        if self.configured is not None:
            value = str(self.configured).lower()
            values = {"enable-ipv4-big-tcp": value, "enable-ipv6-big-tcp": value}
            wanted = Wanted(values | self.values, True, {}, None, 0)
            cluster = ClusterState(wanted, self.pods, {}, {})
        self.snapshot = Snapshot(
            taken=0,
            started=0,
            uptime=0,
            edges=EDGES,
            devices=tuple(self.devices.values()),
            links=tuple(self.links.values()),
            retired={},
            unrecorded={},
            attached=self.attached,
            sources={"cilium": Source(self.answers, 0)},
            kernel="6.18",
            recent=Recent(30, self.rows, self.too_big),
            applied=self.applied,
            runtime=self.runtime,
            cilium_left=self.left,
            cluster=cluster,
        )
        self.verdict = judge(self.snapshot)
        states = [self.verdict.families[family].state for family in (IPV4, IPV6)]
        for finding in self.verdict.findings:
            assert_it_says_something(finding)
        return states, [f"{each.id} {each.severity}" for each in self.verdict.findings]


# What a finding that has no number may have seen: Cilium's own words.
WORDS = re.compile(r"\d|Legacy|iptables|False|tunnel|IPsec|Wireguard|ipip|geneve")


def assert_it_says_something(finding: Finding) -> None:
    assert finding.id in FINDING_IDS
    assert WORDS.search(finding.seen.replace("IPv4", "").replace("IPv6", ""))
    assert finding.why
    assert finding.remedy
    assert finding.families
    assert set(finding.families) <= {IPV4, IPV6}
    assert all(finding.subjects)


def test_every_id_is_told_by_some_function_and_no_other() -> None:
    """They are constants there, each a string of its own."""
    told = {
        constant
        for find in FINDINGS
        for constant in find.__code__.co_consts
        if isinstance(constant, str) and re.fullmatch(r"C\d\d", constant)
    }
    assert sorted(told) == list(FINDING_IDS)


def test_all_is_well() -> None:
    assert World().told() == ([State.ACTIVE, State.ACTIVE], [])


def test_off() -> None:
    world = World()
    world.only()
    world.resize("eth0", DOWN)
    world.resize("lxc1", DOWN)
    world.silence()
    assert world.told() == ([State.DISABLED, State.DISABLED], [])


def test_no_traffic_is_no_evidence() -> None:
    world = World()
    world.silence()
    assert world.told() == ([State.IDLE, State.IDLE], [])
    assert world.verdict.families[IPV4].reason == "not enough traffic to tell"


def test_traffic_but_nothing_big() -> None:
    world = World()
    world.silence()
    world.traffic(OURS, UPLINK, Hook.NET_DEV_START_XMIT, IPV6, 10_000, 0, BIG)
    assert world.told() == ([State.IDLE, State.IDLE], ["C14 info"])


def test_big_although_nobody_asked() -> None:
    world = World()
    world.applied = None
    assert world.told() == ([State.UNMANAGED, State.UNMANAGED], [])


def test_a_pod_at_64_kib_where_nobody_asked() -> None:
    """The uplink was raised by hand, and there is no Cilium."""
    world = World()
    world.applied = None
    world.resize("lxc1", DOWN)
    assert world.told() == ([State.UNMANAGED, State.UNMANAGED], [])
    assert len(Evidence(world.snapshot).pods) == 1


def test_one_family_only() -> None:
    world = World()
    world.only(IPV6)
    world.rows = {key: row for key, row in world.rows.items() if key.family is IPV6}
    assert world.told() == ([State.DISABLED, State.ACTIVE], [])


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


def test_gro_that_was_not_raised() -> None:
    world = World()
    world.change(big_tcp={IPV4: BigTcp(True, BIG, LEGACY), IPV6: BigTcp(True, BIG, 0)})
    world.resize("eth0", replace(UP, gro_ipv4_max=LEGACY))
    assert world.told() == ([State.ACTIVE, State.ACTIVE], ["C02 warning"])
    assert "GRO with 65536" in world.verdict.findings[0].seen


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
        assert "has set gso 196608" in finding.seen
        assert "100000" in finding.seen


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


# As an earlier start of Cilium left it, without BIG TCP.
BEFORE = DaemonConfig({}, "native", "veth", False, True, False, False)


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
    world.runtime = RuntimeConfig(0, BEFORE)
    states, told = world.told()
    assert states == [State.REFUSED, State.REFUSED]
    assert told == ["C02 warning"] * 2 + findings


def test_a_tunnel_is_no_reason_where_it_can_be_big() -> None:
    world = World()
    world.mute(DOWN)
    world.values = {"routing-mode": "tunnel", "bpf-lb-dsr-dispatch": "geneve"}
    world.add(replace(link(6, "cilium_geneve"), sizes=DOWN))
    assert world.told()[1] == ["C02 warning"] * 2


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
    world.runtime = RuntimeConfig(0, replace(BEFORE, big_tcp=flags, **left))
    states, told = world.told()
    assert states == [State.REFUSED, State.DISABLED]
    assert told == ["C02 warning", finding]


def test_a_node_that_runs_no_cilium_on_purpose() -> None:
    """The ConfigMap is the cluster's, and asks nothing of it."""
    world = World()
    world.mute(DOWN)
    assert world.told()[0] == [State.REFUSED, State.REFUSED]
    world.left = False
    assert world.told() == ([State.DISABLED, State.DISABLED], [])
    for judgement in world.verdict.families.values():
        assert judgement.reason == "there is no Cilium here"
    assert Evidence(world.snapshot).configured(IPV4) is None


@pytest.mark.parametrize("trace", ["answer", "file", "device"])
def test_whatever_cilium_left_is_asked_for(trace: str) -> None:
    world = World()
    said = world.applied
    world.mute(DOWN)
    world.left = False
    if trace == "answer":
        world.applied, world.answers = said, False
    elif trace == "file":
        world.runtime = RuntimeConfig(0, BEFORE)
    else:
        world.add(replace(world.links["lxc1"], name="cilium_host", ifindex=77))
    world.told()
    assert Evidence(world.snapshot).asked_for == (IPV4, IPV6)


def test_a_file_that_is_older_than_the_configuration() -> None:
    world = World()
    world.mute(DOWN)
    flags = {IPV4: False, IPV6: False}
    world.runtime = RuntimeConfig(0, replace(BEFORE, big_tcp=flags))
    assert world.told()[1] == ["C02 warning"] * 2 + ["C12 warning"] * 2


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
    assert told == ["C02 warning"] * 2 + ["C05 critical"] + ["C12 warning"] * 2


def test_a_mute_agent_on_a_node_that_is_big() -> None:
    """It refuses to start anew; its devices and programs are still there."""
    world = World()
    rows = world.rows
    world.mute()
    world.rows = rows
    world.values = {"enable-host-legacy-routing": "true", "routing-mode": "tunnel"}
    assert world.told() == ([State.ACTIVE, State.ACTIVE], ["C05 critical"])
    assert "tunnel" not in world.verdict.findings[0].seen


def test_while_it_answers_the_configuration_is_not_asked() -> None:
    world = World()
    world.configured = True
    world.values = {"enable-host-legacy-routing": "true", "enable-ipsec": "true"}
    world.runtime = RuntimeConfig(0, replace(BEFORE, ipsec=True))
    assert world.told() == ([State.ACTIVE, State.ACTIVE], [])


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("sizes", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("configured", [None, False, True])
def test_whatever_is_refused_something_tells_why(
    *, configured: bool | None, sizes: Sizes, answers: bool
) -> None:
    """In every world: exit code 0 would say that nothing is wrong."""
    reports = (BigTcp(), BigTcp(True, LEGACY, LEGACY), BigTcp(True, BIG, BIG))
    flags: tuple[dict[Family, bool] | None, ...]
    flags = (None, {}, {IPV4: True, IPV6: False}, {IPV4: False, IPV6: True})
    refused = 0
    for said, left in itertools.product(
        (None, *itertools.product(reports, repeat=2)), flags
    ):
        world = World()
        world.silence()
        world.resize("eth0", sizes)
        world.configured, world.answers = configured, answers
        if said is None:
            world.applied = None
        else:
            world.change(big_tcp=dict(zip((IPV4, IPV6), said, strict=True)))
        if left is not None:
            world.runtime = RuntimeConfig(0, replace(BEFORE, big_tcp=left))
        world.told()
        for family in (IPV4, IPV6):
            if world.verdict.families[family].state is State.REFUSED:
                refused += 1
                assert any(
                    family in finding.families and finding.severity is not Severity.INFO
                    for finding in world.verdict.findings
                )
    assert refused


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
    world.applied = None
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


@pytest.mark.parametrize(("kind", "findings"), [("veth", ["C19 info"]), ("netkit", [])])
def test_pods_from_before_netkit(kind: str, findings: list[str]) -> None:
    world = World()
    world.change(datapath_mode="netkit")
    world.links["lxc1"] = replace(world.links["lxc1"], kind=kind)
    assert world.told() == ([State.ACTIVE, State.ACTIVE], findings)
