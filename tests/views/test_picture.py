# SPDX-License-Identifier: Apache-2.0
"""The JSON of a snapshot: what is counted stands there row by row."""

import json
from collections.abc import Callable

import pytest

from agent.snapshot.collector import Collector
from agent.snapshot.evidence import Evidence
from agent.snapshot.model import DeviceId, Hook
from agent.snapshot.snapshot import Snapshot
from agent.snapshot.sources import Surroundings
from agent.views.exporter import metrics
from agent.views.picture import picture
from tests.snapshot.fakes import OURS, FakeProbes, lengths, link
from tests.snapshot.world import World


def test_counters() -> None:
    probes = FakeProbes()
    probes.put(OURS, 2, lengths(5, 3))
    probes.put(20, 3, lengths(7), peer=DeviceId(OURS, 9), hook=Hook.NETIF_RECEIVE_SKB)
    links = [link(2, "eth0"), link(9, "lxc1")]
    around = Surroundings(kernel="6.18", node="node1")
    collector = Collector(probes, lambda: links, OURS, around, wall=lambda: 1e9)
    told = json.loads(json.dumps(picture(collector.snapshot())))
    assert (told["started"], told["taken"]) == (1e9, 1e9)
    assert (told["node"], told["kernel"]) == ("node1", "6.18")
    assert told["edges"] == [1500, 65536, 196608]
    ours, pod = told["counters"]
    assert ours == {
        "device": "eth0",
        "kind": "veth",
        "netns": 4026530000 + OURS,
        "cookie": OURS,
        "ifindex": 2,
        "peer": None,
        "scope": "node",
        "hook": "net_dev_start_xmit",
        "ip_family": "ipv4",
        "slots": [5, 0, 3, 0],
        "bytes": 305_000,
        "big_bytes": 300_000,
        "segments": 212,
        "longest": 100_000,
        "limit": 65536,
    }
    assert (pod["scope"], pod["hook"], pod["peer"]) == ("pods", "netif_receive_skb", 9)


@pytest.mark.parametrize("view", [picture, lambda snapshot: list(metrics(snapshot))])
def test_a_snapshot_is_judged_by_one_evidence(
    view: Callable[[Snapshot], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it caches is what takes long: pods, endpoints, native devices."""
    world, made = World(), []
    world.told()
    init = Evidence.__init__

    def counted(self: Evidence, snapshot: Snapshot) -> None:
        made.append(snapshot)
        init(self, snapshot)

    monkeypatch.setattr(Evidence, "__init__", counted)
    view(world.snapshot)
    assert made == [world.snapshot]
