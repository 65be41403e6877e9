# SPDX-License-Identifier: Apache-2.0
"""Real devices, real packets, and the words of a recorded Cilium: exactly this
verdict, exactly these findings.
"""

import contextlib
import copy
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.lab.demo import BIG, LEGACY
from agent.lab.netns import Namespace, Stand, namespaces, pair, veth, wait_until
from agent.lab.netperf import serve, tcp_rr_command
from tests.process import COMMAND, agent
from tests.sources.agent import agent as cilium
from tests.sources.agent import answering, recorded
from tests.stand import at_rest

FAMILIES = ("ipv4", "ipv6")


def words(
    devices: Sequence[str], sizes: dict[str, int], version: str = "1.20.2"
) -> dict[str, Any]:
    """Cilium 1.20.2 as recorded, with these devices and BIG TCP sizes; no pods."""
    answers: dict[str, Any] = copy.deepcopy(recorded("1.20.2")["on"])
    health = answers["/v1/healthz"]
    health["cilium"]["msg"] = f"{version} (v{version}-0123abcd)"
    health["kube-proxy-replacement"]["devices"] = list(devices)
    for family in FAMILIES:
        size = sizes.get(family, 0)
        health[f"{family}-big-tcp"] = (
            {"enabled": True, "maxGSO": size, "maxGRO": size} if size else {}
        )
    answers["/v1/endpoint"] = []
    return answers


@dataclass
class Told:
    states: list[str]
    findings: list[str]
    subjects: list[list[str]]


@contextlib.contextmanager
def seen_from(
    node: Namespace, answers: dict[str, Any] | None, folder: Path
) -> Iterator["Watcher"]:
    """An agent in a namespace, with this Cilium or none."""
    path = folder / "cilium.sock"
    with contextlib.ExitStack() as stack:
        if answers is not None:
            stack.enter_context(cilium(path, answering(answers)))
        flags = ("--cilium-socket", str(path))
        _, url = stack.enter_context(agent(*flags, within=node))
        yield Watcher(node, url)


def sent(node: Namespace) -> dict[str, int]:
    """The bytes that a namespace has sent, by family."""
    counters = {"ipv4": "IpExtOutOctets", "ipv6": "Ip6OutOctets"}
    told = json.loads(node.run("nstat", "-asjz", *counters.values()))["kernel"]
    return {family: told[counters[family]] for family in FAMILIES}


@contextlib.contextmanager
def traffic(stand: Stand, families: Sequence[str]) -> Iterator[None]:
    """netperf for each of these families, side by side; each has begun to send."""
    before = sent(stand.client)
    netperfs = [
        stand.client.start(
            *("taskset", "-c", "0", *tcp_rr_command(stand.addresses[family], 600))
        )
        for family in families
    ]

    def under_way() -> bool:
        now = sent(stand.client)
        return all(now[family] - before[family] > 1_000_000 for family in families)

    try:
        wait_until(under_way, "traffic of each family")
        yield
    finally:
        for netperf in netperfs:
            netperf.kill()
            netperf.wait()
    at_rest(lambda: (sent(stand.client), sent(stand.server)))


@dataclass
class Watcher:
    node: Namespace
    url: str

    def told(self, stand: Stand | None = None, *families: str) -> Told:
        """What `check` tells of 4 s, in which netperf runs for these families."""
        argv = self.node.command(
            *(COMMAND, "check", "--url", self.url, "--seconds", "4", "-o", "json")
        )
        with traffic(stand, families) if stand else contextlib.nullcontext():
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert not done.stderr
        answer = json.loads(done.stdout)
        findings = answer["findings"]
        bad = any(each["severity"] != "info" for each in findings)
        assert done.returncode == (5 if bad else 0)
        return Told(
            [answer["families"][name]["state"] for name in FAMILIES],
            [each["id"] for each in findings],
            [each["subjects"] for each in findings],
        )


@pytest.fixture
def nodes() -> Iterator[Stand]:
    """Two nodes that face each other; the agent's is the client."""
    with pair() as stand:
        serve(stand.server, 0)
        yield stand


def test_all_is_well(nodes: Stand, tmp_path: Path) -> None:
    nodes.set_sizes(BIG)
    answers = words(["eth0"], dict.fromkeys(FAMILIES, BIG))
    with seen_from(nodes.client, answers, tmp_path) as watcher:
        assert watcher.told(nodes, *FAMILIES) == Told(["active", "active"], [], [])
        assert watcher.told() == Told(["idle", "idle"], [], [])


@pytest.mark.parametrize("family", FAMILIES)
def test_one_family_only(nodes: Stand, tmp_path: Path, family: str) -> None:
    for namespace, device in nodes.devices:
        size = {"ipv4": "gso_ipv4_max", "ipv6": "gso_max"}[family]
        namespace.set_size(device, **{size: BIG, size.replace("gso", "gro"): BIG})
    answers = words(["eth0"], {family: BIG})
    with seen_from(nodes.client, answers, tmp_path) as watcher:
        told = watcher.told(nodes, *FAMILIES)
    expected = ["active" if name == family else "disabled" for name in FAMILIES]
    assert told == Told(expected, [], [])


def test_unmanaged(nodes: Stand, tmp_path: Path) -> None:
    """Raised by hand. There is a pod at 64 KiB, and nobody to restart it."""
    nodes.set_sizes(BIG)
    with namespaces("pod") as (pod,), seen_from(nodes.client, None, tmp_path) as at:
        veth(nodes.client, "veth1", pod, "eth0")
        told = at.told(nodes, *FAMILIES)
    assert told == Told(["unmanaged", "unmanaged"], [], [])


def test_a_device_that_cannot(nodes: Stand, tmp_path: Path) -> None:
    """A VXLAN device that follows flows has a tso_max_size of 65,536."""
    nodes.client.ip("link add nic0 type vxlan external dstport 4789")
    answers = words(["nic0"], dict.fromkeys(FAMILIES, LEGACY))
    with seen_from(nodes.client, answers, tmp_path) as watcher:
        told = watcher.told(nodes, *FAMILIES)
    assert told == Told(
        ["refused", "refused"], ["C02", "C02", "C03"], [[], [], ["nic0"]]
    )


def test_one_that_spoils_it_for_the_others(nodes: Stand, tmp_path: Path) -> None:
    nodes.client.ip("link add nic0 type vxlan external dstport 4789")
    answers = words(["eth0", "nic0"], dict.fromkeys(FAMILIES, LEGACY))
    with seen_from(nodes.client, answers, tmp_path) as watcher:
        told = watcher.told()
    assert told.findings == ["C02", "C02", "C04"]
    assert told.subjects[-1] == ["nic0"]


def test_cilium_1_19_with_a_tunnel_device(nodes: Stand, tmp_path: Path) -> None:
    nodes.set_sizes(BIG)
    nodes.client.ip("link add cilium_vxlan type vxlan external dstport 4789")
    answers = words(["eth0"], dict.fromkeys(FAMILIES, BIG), "1.19.2")
    with seen_from(nodes.client, answers, tmp_path) as watcher:
        told = watcher.told(nodes, *FAMILIES)
    assert told == Told(["active", "active"], ["C10"], [["cilium_vxlan"]])


def test_a_nic_that_was_reset(nodes: Stand, tmp_path: Path) -> None:
    """`ip link set gso_max_size 65536` takes the IPv4 size along."""
    nodes.set_sizes(BIG)
    nodes.client.set_size("eth0", gso_max=LEGACY)
    answers = words(["eth0"], dict.fromkeys(FAMILIES, BIG))
    with seen_from(nodes.client, answers, tmp_path) as watcher:
        told = watcher.told(nodes, *FAMILIES)
    assert told == Told(["partial", "partial"], ["C07", "C07"], [["eth0"], ["eth0"]])


def test_a_device_that_cannot_segment(nodes: Stand, tmp_path: Path) -> None:
    """Its limits are high enough."""
    nodes.set_sizes(BIG)
    nodes.client.run("ethtool", "-K", "eth0", "tso", "off")
    answers = words(["eth0"], dict.fromkeys(FAMILIES, BIG))
    with seen_from(nodes.client, answers, tmp_path) as watcher:
        told = watcher.told(nodes, *FAMILIES)
    assert told == Told(["segmented", "segmented"], ["C09"], [["eth0"]])


def test_gro_off_and_on(tmp_path: Path) -> None:
    """Of frames of 9,000 bytes; the other end sends them one by one."""
    with pair(9000) as nodes:
        serve(nodes.server, 0)
        nodes.client.set_sizes("eth0", BIG)
        nodes.server.run("ethtool", "-K", "eth0", "tso", "off")
        answers = words(["eth0"], dict.fromkeys(FAMILIES, BIG))
        with seen_from(nodes.client, answers, tmp_path) as watcher:
            told = watcher.told(nodes, *FAMILIES)
            assert told.findings == ["C15", "C15"]
            assert told.subjects == [["eth0"], ["eth0"]]
            nodes.client.run("ethtool", "-K", "eth0", "gro", "on")
            told = watcher.told(nodes, *FAMILIES)
            assert told == Told(["active", "active"], [], [])


def test_a_bridge_at_64_kib_between_the_nodes(tmp_path: Path) -> None:
    with namespaces("node1", "machine", "node2") as (node1, machine, node2):
        machine.ip("link add br0 type bridge mcast_snooping 0", "link set br0 up")
        for node, port, number in ((node1, "port1", 1), (node2, "port2", 2)):
            veth(node, "eth0", machine, port)
            machine.ip(f"link set {port} master br0")
            node.ip(
                f"addr add 192.0.2.{number}/24 dev eth0",
                f"addr add 2001:db8::{number}/64 dev eth0 nodad",
            )
            node.set_sizes("eth0", BIG)
        addresses = {"ipv4": "192.0.2.2", "ipv6": "2001:db8::2"}
        stand = Stand(node1, node2, addresses, ())
        serve(node2, 0)
        answers = words(["eth0"], dict.fromkeys(FAMILIES, BIG))
        with seen_from(node1, answers, tmp_path) as watcher:
            told = watcher.told(stand, *FAMILIES)
            where = f"(netns {machine.inode})"
            assert told == Told(
                ["segmented", "segmented"],
                ["C09", "C09"],
                [[f"port1 {where}"], [f"port2 {where}"]],
            )
            for port in ("port1", "port2"):
                machine.set_sizes(port, BIG)
            assert watcher.told(stand, *FAMILIES).states == ["active", "active"]
