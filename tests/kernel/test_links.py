# SPDX-License-Identifier: Apache-2.0
"""What rtnetlink says of links, beside what `ip` makes of it."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from agent.errors import AgentError
from agent.kernel.links import Rtnetlink
from agent.lab.netns import Namespace, namespaces, veth, wait_until
from agent.snapshot.model import Counters, Family, Link
from tests.kernel.frames import N, frame, ip_packet, send_frames
from tests.stand import write_sysctl

SIZES = {
    "gso_max": 100_000,
    "gro_max": 110_000,
    "gso_ipv4_max": 120_000,
    "gro_ipv4_max": 130_000,
}
# Modules that not every machine has.
PERHAPS = (
    "link add dummy0 type dummy",
    "link add link near name near.7 type vlan id 7",
    "link add link near name mac0 type macvlan",
    "link add vxlan0 type vxlan id 7 dstport 4789",
)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """With links of many kinds, of which some have counted something."""
    with namespaces("here", "there") as (here, there):
        for space in (here, there):  # so that nobody counts while we compare
            write_sysctl(space, "ipv6/conf/default/disable_ipv6", "1")
        veth(here, "eth0", there, "eth0")
        veth(here, "near", here, "far")
        here.ip("link add br0 type bridge", "link set far master br0")
        for line in PERHAPS:
            with contextlib.suppress(AgentError):
                here.ip(line)
        here.set_size("eth0", **SIZES)
        send_frames(here, [frame(Family.IPV4, ip_packet(Family.IPV4, 100))] * N)
        send_frames(there, [frame(Family.IPV4, ip_packet(Family.IPV4, 200))] * N)
        yield here


def from_us(link: Link) -> dict[str, Any]:
    return {
        "ifindex": link.ifindex,
        "ifname": link.name,
        "kind": link.kind,
        "address": link.mac,
        "link": link.parent,
        "master": link.master,
        "link_netnsid": link.netnsid,
        "loopback": link.loopback,
        "header": link.header,
        "gso_max_size": link.sizes.gso_max,
        "gro_max_size": link.sizes.gro_max,
        "tso_max_size": link.sizes.tso_max,
        "rx": link.counters.rx_bytes,
        "tx": link.counters.tx_bytes,
    }


def from_ip(link: dict[str, Any], indexes: dict[str, int]) -> dict[str, Any]:
    same = ("ifindex", "ifname", "address", "gso_max_size", "gro_max_size")
    parent = indexes.get(link.get("link", ""))
    return {key: link[key] for key in (*same, "tso_max_size")} | {
        "kind": link.get("linkinfo", {}).get("info_kind", ""),
        "link": link.get("link_index", parent),  # by name where it stands here, too
        "master": indexes.get(link.get("master", "")),
        "link_netnsid": link.get("link_netnsid"),
        "loopback": "LOOPBACK" in link["flags"],
        "header": 14 if link["link_type"] == "ether" else 0,
        "rx": link["stats64"]["rx"]["bytes"],
        "tx": link["stats64"]["tx"]["bytes"],
    }


def test_links_are_what_ip_says(namespace: Namespace) -> None:
    with contextlib.closing(namespace.call(Rtnetlink)) as rtnetlink:

        def eth0() -> Link:
            return next(link for link in rtnetlink.links() if link.name == "eth0")

        counted = Counters(rx_bytes=N * (14 + 200), tx_bytes=N * (14 + 100))
        wait_until(lambda: eth0().counters == counted, "the frames to be counted")
        links, sizes = rtnetlink.links(), eth0().sizes
    told = json.loads(namespace.run("ip", "-d", "-s", "-j", "link"))
    indexes = {each["ifname"]: each["ifindex"] for each in told}
    assert [from_us(link) for link in links] == [
        from_ip(each, indexes) for each in told
    ]
    assert {"", "veth", "bridge"} <= {link.kind for link in links}
    assert {link.name for link in links if link.master == indexes["br0"]} == {"far"}
    assert (sizes.gso_max, sizes.gro_max) == (100_000, 110_000)
    # None before Linux 6.3; iproute2 prints them since 6.3, too.
    assert sizes.gso_ipv4_max in (120_000, None)
    assert sizes.gro_ipv4_max in (130_000, None)
    for link, each in zip(links, told, strict=True):
        ours = (link.sizes.gso_ipv4_max, link.sizes.gro_ipv4_max)
        keys = ("gso_ipv4_max_size", "gro_ipv4_max_size")
        assert tuple(map(each.get, keys, ours)) == ours
