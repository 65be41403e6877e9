# SPDX-License-Identifier: Apache-2.0
"""`check` says what it could not see, what it shows that is old, and what to do."""

from dataclasses import replace

import pytest

from agent.node import _NOT_ASKED
from agent.snapshot.collector import Collector
from agent.snapshot.model import Hook, Link, MapEntries, Source
from agent.snapshot.schema import FindingJson, SnapshotJson
from agent.snapshot.sources import Surroundings, Told
from agent.typed_json import convert
from agent.views.check import check_text, finding_lines
from agent.views.picture import picture
from agent.views.top.texts import findings_lines
from tests.snapshot.fakes import OURS, FakeProbes, lengths, link
from tests.sources.agent import recorded, understood
from tests.views.top.fakes import FINDING, FakeFeed

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
    return probes, Surroundings(applied=lambda: here, runtime=lambda: CILIUM.config)


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


# What a finding says to do, and the lines of it.
REMEDIES = {
    "kubectl logs -n kube-system cilium-x7k2p": [
        "    do:",
        "      kubectl logs -n kube-system cilium-x7k2p",
    ],
    "if it is TCP: ethtool -K eth0 gro on": [
        "    do: if it is TCP:",
        "      ethtool -K eth0 gro on",
    ],
    f"look at its pod: kubectl get pods {'-A ' * 40}; at its log: kubectl logs POD": [
        "    do: look at its pod:",
        f"      kubectl get pods {'-A ' * 40}",
        "    at its log:",
        "      kubectl logs POD",
    ],
    "send this: bigtcp-agent check; if it stays: restart the node": [
        "    do: send this:",
        "      bigtcp-agent check",
        "    if it stays: restart the node",
    ],
    "set routingMode=native; see what kubectl tells": [
        "    do: set routingMode=native; see what kubectl tells"
    ],
}


@pytest.mark.parametrize("remedy", REMEDIES)
def test_a_command_is_a_line_of_its_own(remedy: str) -> None:
    """And is not wrapped: it is pasted into a shell."""
    lines = finding_lines(convert({**FINDING, "remedy": remedy}, FindingJson))
    (first,) = (at for at, line in enumerate(lines) if line.startswith("    do:"))
    assert lines[first:-1] == REMEDIES[remedy]
    assert lines[-1].startswith("    which: ")


@pytest.mark.parametrize("remedy", REMEDIES)
@pytest.mark.parametrize("width", [30, 80])
def test_a_command_on_a_screen_is_wrapped(remedy: str, width: int) -> None:
    """None of it is cut off."""
    snapshot = FakeFeed().sample(findings=[{**FINDING, "remedy": remedy}]).snapshot
    drawn = [
        "".join(text for text, _ in spans) for spans in findings_lines(snapshot, width)
    ]
    assert max(map(len, drawn)) <= width
    assert all(word in " ".join(drawn) for word in remedy.replace(";", "").split())
