# SPDX-License-Identifier: Apache-2.0
"""`check` says what it could not see, and what it shows that is old."""

from dataclasses import replace

from agent.node import _NOT_ASKED
from agent.snapshot.cilium import RuntimeConfig
from agent.snapshot.collector import Collector
from agent.snapshot.model import Hook, Link, MapEntries, Source
from agent.snapshot.schema import SnapshotJson
from agent.snapshot.sources import Surroundings, Told
from agent.typed_json import convert
from agent.views.check import check_text
from agent.views.picture import picture
from tests.snapshot.fakes import OURS, FakeProbes, lengths, link
from tests.sources.agent import recorded, understood

CILIUM = understood(recorded("1.20.2")["on"])
NOW = 1e9


# The host's side of each pod.
PODS = [link(each.ifindex, each.interface) for each in CILIUM.endpoints if each.is_pod]


def unseen(probes: FakeProbes, around: Surroundings, *pods: Link) -> list[str]:
    """Those lines of the answer."""
    probes.put(OURS, 2, lengths(5, 3))
    links = [link(2, "eth0"), *pods]
    collector = Collector(probes, lambda: links, OURS, around, wall=lambda: NOW)
    lines = check_text(
        convert(picture(collector.snapshot()), SnapshotJson), "our own probes"
    ).splitlines()
    mark = "not seen: "
    return [line.removeprefix(mark) for line in lines if line.startswith(mark)]


def all_there() -> tuple[FakeProbes, Surroundings]:
    probes = FakeProbes()
    probes.attached = dict.fromkeys(Hook, True)
    here = Told(CILIUM, Source(True, 0, NOW))
    runtime = RuntimeConfig(NOW, CILIUM.config)
    return probes, Surroundings(applied=lambda: here, runtime=lambda: runtime)


def test_all_is_seen() -> None:
    assert unseen(*all_there(), *PODS) == []


def test_hooks_that_are_not_attached() -> None:
    """Refused by the kernel, or not asked for: without net_dev_queue all may look
    well while a device cuts every packet.
    """
    probes, around = all_there()
    probes.attached[Hook.NET_DEV_QUEUE] = False
    del probes.attached[Hook.NETIF_RECEIVE_SKB]
    assert unseen(probes, around, *PODS) == [
        "what is received: netif_receive_skb is not attached",
        "what is cut in software: net_dev_queue is not attached",
    ]


def test_packets_that_found_no_room() -> None:
    probes, around = all_there()
    counts = {"map_full": 1234, "no_memory": 0, "no_address": 7}
    probes.reading = replace(probes.reading, unrecorded=counts)
    said = ["1,234 packets since the agent started: map_full"]
    assert unseen(probes, around, *PODS) == said


def test_devices_of_other_namespaces_that_are_counted_together() -> None:
    probes, around = all_there()
    for used, told in ((511, []), (512, ["single devices of other namespaces"])):
        maps = {"foreign_devices": MapEntries(used, 512)}
        probes.reading = replace(probes.reading, maps=maps)
        found = unseen(probes, around, *PODS)
        assert [line.partition(" beyond the first 512: ")[0] for line in found] == told


def test_what_is_kept_of_the_mute_has_an_age() -> None:
    probes, around = all_there()
    mute = Told(CILIUM, Source(False, 7, NOW - 40), "no answer within 3 s")
    assert unseen(probes, replace(around, applied=lambda: mute), *PODS) == [
        "cilium: no answer within 3 s; shown is what it said 40 s ago"
    ]


def test_a_pod_whose_device_is_not_here() -> None:
    assert unseen(*all_there(), PODS[1]) == [
        "the size of default/p1: its device is not here"
    ]


def test_who_is_not_asked() -> None:
    probes, around = all_there()
    assert unseen(probes, replace(around, cluster=lambda: _NOT_ASKED), *PODS) == [
        "configmap: not asked: no --node-name",
        "nodeconfigs: not asked: no --node-name",
    ]
