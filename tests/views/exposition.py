# SPDX-License-Identifier: Apache-2.0
"""A node that has everything, and /metrics of it as text: `python -m
tests.views.exposition` writes it anew.
"""

import re
from bisect import bisect_left
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from agent.snapshot.cilium import ClusterState, Endpoint, Wanted
from agent.snapshot.collector import Collector
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import (
    Counters,
    DeviceId,
    Family,
    Hook,
    Lengths,
    MapEntries,
    Sizes,
    Source,
)
from agent.snapshot.naming import Naming
from agent.snapshot.pods import PodName, Pods
from agent.snapshot.snapshot import Snapshot
from agent.snapshot.sources import Surroundings, Told
from agent.views.exporter import FromSource
from tests.snapshot.fakes import OURS, FakeProbes, link
from tests.sources.agent import recorded, understood

FILE = Path(__file__).parent / "metrics.txt"
NOW = 1_700_000_123.0
EDGES = (512, 1500, 65536, 196608)  # those that findings ask for, and few more
HOOKS = (Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB, Hook.NET_DEV_QUEUE)
UP = Sizes(196608, 196608, 524280, 196608, 196608)
LEGACY = Sizes(65536, 65536, 524280, 65536, 65536)
# Host sides of pods, by ifindex; the sizes of db are from before BIG TCP.
DB = 102
PODS = {101: "web", DB: "db", 103: "idle"}
NAMES = {ifindex: PodName("default", name) for ifindex, name in PODS.items()}


def counted(edges: tuple[int, ...], small: int, big: int) -> Lengths:
    """`small` skbs of 1,000 bytes and `big` of 100,000."""
    slots = [0] * (len(edges) + 1)
    slots[bisect_left(edges, 1000)] += small
    slots[bisect_left(edges, 100_000)] += big
    size = 1000 * small + 100_000 * big
    seen = Histogram(edges, tuple(slots), size, 100_000 * big)
    return Lengths(seen, small + 69 * big, 100_000 if big else 1000)


def endpoint(ifindex: int, name: str) -> Endpoint:
    return Endpoint(ifindex, ifindex, f"lxc{ifindex}", (), "default", name, is_pod=True)


def around(most: int) -> Surroundings:
    """Cilium in its own words; an API server that did not answer for pods."""
    said = understood(recorded("1.20.2")["on"])
    pods = [endpoint(ifindex, name) for ifindex, name in PODS.items()]
    lost = endpoint(199, "lost")  # its device is not here
    applied = replace(said, devices=("eth0",), endpoints=(*pods, lost))
    values = dict.fromkeys(("enable-ipv4-big-tcp", "enable-ipv6-big-tcp"), "true")
    sources = {
        "configmap": Source(True, 1, NOW),
        "nodeconfigs": Source(False, 0),
        "pods": Source(False, 4, NOW - 900),
    }
    cluster = ClusterState(Wanted(values, True, {}, NOW - 600, NOW), None, sources, {})
    return Surroundings(
        applied=lambda: Told(applied, Source(True, 2, NOW - 3)),
        cluster=lambda: cluster,
        kernel="6.18.44",
        naming=Naming(lambda name: name.startswith("eth"), most),
    )


def busy_node(cards: int, most: int, edges: tuple[int, ...] = EDGES) -> Snapshot:
    """Every hook of every device has seen every family, for half a minute. Of so
    many network cards `most` have a name in /metrics.
    """
    probes, seconds = FakeProbes(), 0.0
    probes.attached = dict.fromkeys(HOOKS, True) | {Hook.NAPI_GRO_RECEIVE_ENTRY: False}
    unrecorded = {"map_full": 11, "no_memory": 0, "no_device": 2, "no_address": 3}
    maps = {
        "lengths": MapEntries(4096, 16384),
        "devices": MapEntries(8192, 16384),
        "foreign_devices": MapEntries(512, 512),
        "foreign_big_devices": MapEntries(0, 128),
    }
    probes.reading = replace(
        probes.reading, edges=edges, unrecorded=unrecorded, maps=maps
    )
    names = {2 + number: f"eth{number}" for number in range(cards)}
    names |= {ifindex: f"lxc{ifindex}" for ifindex in PODS}
    links = [link(1, "lo", loopback=True)]
    links += [
        replace(
            link(ifindex, name),
            kind="veth" if ifindex in PODS else "",
            sizes=LEGACY if ifindex == DB else UP,
        )
        for ifindex, name in names.items()
    ]
    collector = Collector(
        probes,
        lambda: links,
        OURS,
        around(most),
        monotonic=lambda: seconds,
        wall=lambda: NOW,
    )
    collector.snapshot()
    seconds = 30.0
    for (number, family), (at, hook) in product(enumerate(Family), enumerate(HOOKS)):
        put = partial(probes.put, hook=hook, family=family)
        for ifindex, name in names.items():
            put(OURS, ifindex, counted(edges, ifindex + at, 100 + number), name=name)
        for ifindex in PODS:
            put(
                *(1000 + ifindex, 3, counted(edges, ifindex + at, 200 + number)),
                peer=DeviceId(OURS, ifindex),
                limit=LEGACY.gso_max if ifindex == DB else UP.gso_max,
            )
        put(2000, 3, counted(edges, 7 + at, 300 + number))
    received = {
        (ifindex, family): counted(edges, ifindex, 400 + number)
        for number, family in enumerate((Family.IPV4, Family.IPV6))
        for ifindex in PODS
    }
    probes.reading = replace(probes.reading, pods_received=received)
    # What eth0 sent is just what we counted, with a header each; received was more.
    links[1] = replace(links[1], counters=Counters(61_000_000, 30_310_326))
    return collector.snapshot()


def draw() -> str:
    """The text, but for what differs from machine to machine."""
    snapshot, pods = busy_node(cards=2, most=1), Pods(most=2)
    registry = CollectorRegistry()
    registry.register(
        FromSource(lambda: snapshot, lambda seen: pods.traffic(seen, NAMES))
    )
    text = generate_latest(registry).decode()
    build = re.compile("^bigtcp_build_info.*", re.MULTILINE)
    return build.sub(lambda line: re.sub('"[^"]*"', '"…"', line[0]), text)


if __name__ == "__main__":
    FILE.write_text(draw())
