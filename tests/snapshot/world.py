# SPDX-License-Identifier: Apache-2.0
"""A node as a snapshot has it, for a test to spoil; and what is told of it."""

import json
import re
from bisect import bisect_left
from dataclasses import replace
from typing import Any

import msgspec

from agent.kernel.contract import Contract, bpf_directory
from agent.snapshot.cilium import (
    Applied,
    BigTcp,
    CiliumPod,
    ClusterState,
    DaemonConfig,
    Endpoint,
    Pod,
    Wanted,
)
from agent.snapshot.evidence import Evidence
from agent.snapshot.findings import FINDING_IDS
from agent.snapshot.findings.finding import Finding
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
from agent.snapshot.schema import SnapshotJson
from agent.snapshot.snapshot import DeviceRows, Recent, Snapshot
from agent.snapshot.verdict import State, judge
from agent.typed_json import convert
from agent.views.check import COMMAND
from agent.views.picture import picture
from tests.snapshot.fakes import OURS, endpoint, link

EDGES = Contract.read(bpf_directory()).edges

BIG, LEGACY = 196608, 65536
UP = Sizes(BIG, BIG, 524280, BIG, BIG)
DOWN = Sizes(LEGACY, LEGACY, 524280, LEGACY, LEGACY)
IPV4, IPV6 = Family.IPV4, Family.IPV6
POD, HOST_SIDE, UPLINK, PORT = 40, 9, 2, 70  # netns, ifindexes, a foreign netns
# As an earlier start of Cilium left it, without BIG TCP.
BEFORE = DaemonConfig({}, "native", "veth", False, True, False, False)
# What a finding that has no number may have seen: Cilium's own words, its socket.
WORDS = re.compile(
    r"\d|Legacy|iptables|False|tunnel|IPsec|Wireguard|ipip|geneve|socket"
)


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
            endpoints=(endpoint(HOST_SIDE, "web"),),
        )
        self.configured: bool | None = None
        self.found = True  # the ConfigMap, where the API server was asked for it
        self.values: dict[str, str] = {}  # the rest of the ConfigMap
        self.answers = self.left = True
        self.pods: tuple[Pod, ...] | None = None
        self.cilium_pods: tuple[CiliumPod, ...] | None = None
        self.stored: tuple[Endpoint, ...] = ()
        self.problems: dict[str, str] = {}
        self.errors = 0  # of Cilium's agent
        self.runtime: DaemonConfig | None = None
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
            wanted = Wanted(values | self.values, self.found, {}, None, 0)
            cluster = ClusterState(wanted, self.pods, {}, {}, self.cilium_pods)
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
            sources={"cilium": Source(self.answers, self.errors)},
            kernel="6.18",
            recent=Recent(30, self.rows, self.too_big),
            applied=self.applied,
            runtime=self.runtime,
            cilium_left=self.left,
            stored_endpoints=self.stored,
            problems=self.problems,
            cluster=cluster,
        )
        self.verdict = judge(Evidence(self.snapshot))
        assert_it_is_read_as_it_was_written(picture(self.snapshot))
        states = [self.verdict.families[family].state for family in (IPV4, IPV6)]
        for finding in self.verdict.findings:
            assert_it_says_something(finding)
        return states, [f"{each.id} {each.severity}" for each in self.verdict.findings]


def assert_it_is_read_as_it_was_written(told: dict[str, Any]) -> None:
    written = json.loads(json.dumps(told))
    read = msgspec.to_builtins(convert(written, SnapshotJson))
    assert json.loads(json.dumps(read)) == written


def assert_it_says_something(finding: Finding) -> None:
    assert finding.id in FINDING_IDS
    assert WORDS.search(finding.seen.replace("IPv4", "").replace("IPv6", ""))
    # Numbers have thousands separators; a namespace's is a name.
    assert not re.search(r"\d{5}", re.sub(r"netns \d+", "", finding.seen))
    assert finding.why
    assert finding.remedy
    # `check` finds each command, to write it into a line of its own.
    programs = re.findall(r"\b(?:bigtcp-agent|ethtool|kubectl)\b", finding.remedy)
    assert [each.split()[0] for each in COMMAND.findall(finding.remedy)] == programs
    assert finding.families
    assert set(finding.families) <= {IPV4, IPV6}
    assert all(finding.subjects)
