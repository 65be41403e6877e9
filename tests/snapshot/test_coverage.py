# SPDX-License-Identifier: Apache-2.0
"""Of which devices it can be told whether all is seen that they count."""

import pytest

from agent.snapshot.coverage import Covered
from agent.snapshot.model import Hook, Link
from tests.snapshot.fakes import link

ATTACHED = dict.fromkeys((Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB), True)


def told(*links: Link) -> set[tuple[str, str]]:
    """Names and directions that have a coverage once each link counts."""
    covered = Covered()
    covered.since_first((), [link(each.ifindex, each.name) for each in links], ATTACHED)
    return set(covered.since_first((), links, ATTACHED))


BOTH = {("eth0", "rx"), ("eth0", "tx")}


def test_what_a_master_receives_is_seen_below() -> None:
    """netvsc has no kind: what its VF receives is counted at both, seen at one."""
    master, below = link(2, "eth0", 1, 1), link(3, "enP1", 1, 1, master=2)
    assert told(master, below) == {("eth0", "tx"), ("enP1", "rx"), ("enP1", "tx")}
    assert told(master) == BOTH


@pytest.mark.parametrize("kind", ["bond", "team", "vrf", "failover"])
def test_every_master_is_so(kind: str) -> None:
    assert told(link(2, "eth0", 1, 1, kind=kind), link(3, "a", master=2)) == {
        ("eth0", "tx")
    }


def test_a_bridge_receives_anew() -> None:
    assert told(link(2, "eth0", 1, 1, kind="bridge"), link(3, "a", master=2)) == BOTH


@pytest.mark.parametrize("kind", ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"])
def test_what_stands_on_another_is_no_master(kind: str) -> None:
    assert told(link(2, "eth0", 1, 1, kind=kind)) == {("eth0", "tx")}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("vxlan", set()),
        ("geneve", set()),
        ("gretap", set()),
        ("wireguard", set()),
        ("ifb", set()),
        ("ipip", BOTH),
        ("sit", BOTH),
    ],
)
def test_tunnels_count_something_else(
    kind: str, expected: set[tuple[str, str]]
) -> None:
    assert told(link(2, "eth0", 1, 1, kind=kind)) == expected
