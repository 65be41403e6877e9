# SPDX-License-Identifier: Apache-2.0
"""Every query of every dashboard, and every rule, on a real Prometheus that scrapes
real agents: an answer, and the right one.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import pytest
import yaml

from agent.lab.netns import wait_until
from agent.lab.netperf import MESSAGE_BYTES
from agent.snapshot.experiment import Netperf
from agent.snapshot.model import Family, Hook
from tests.charts.dashboards import NAMES, Query, chosen, load, panels, queries
from tests.charts.stand import BIG, LEGACY, RULES, Stand, stand
from tests.charts.test_dashboards import recorded
from tests.process import fetch
from tests.prometheus import Sample

XMIT = Hook.NET_DEV_START_XMIT
QUERIES = list(queries())
NODE1 = 'node="node1"'
FAMILIES = ["ipv4", "ipv6"]
TARGETS = 4  # of the stand: two agents, netperf's results, the ConfigMap


def told(on: Stand, node: int) -> dict[str, Any]:
    """What a node's agent itself says."""
    url = f"{on.addresses[node]}/api/snapshot"
    answer: dict[str, Any] = json.loads(
        on.nodes[node].space.call(lambda: fetch(url))[1]
    )
    return answer


@dataclass(frozen=True)
class Sent:
    """What devices sent of a family, by the agent's own counters."""

    bytes: int = 0
    big_bytes: int = 0
    skbs: int = 0
    big_skbs: int = 0
    segments: int = 0

    def __add__(self, other: "Sent") -> "Sent":
        return Sent(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def since(self, before: "Sent") -> "Sent":
        pairs = zip(astuple(self), astuple(before), strict=True)
        return Sent(*(now - then for now, then in pairs))


@dataclass(frozen=True)
class Counted:
    """By family: what a node's own devices sent, the client's pod, and the longest."""

    node: dict[str, Sent]
    pod: dict[str, Sent]
    longest: dict[str, int]


def counters(on: Stand) -> Counted:
    """Of the first node."""
    found = Counted({}, {}, {})
    answer = told(on, 0)
    first_big = answer["edges"].index(LEGACY) + 1
    for row in answer["counters"]:
        if row["hook"] != XMIT:
            continue
        family, slots = row["ip_family"], row["slots"]
        sent = Sent(
            row["bytes"],
            row["big_bytes"],
            sum(slots),
            sum(slots[first_big:]),
            row["segments"],
        )
        if row["scope"] == "node":
            found.node[family] = found.node.get(family, Sent()) + sent
            found.longest[family] = max(found.longest.get(family, 0), row["longest"])
        elif (row["scope"], row["peer"]) == ("pods", on.client.host):
            found.pod[family] = sent
    return found


def scraped(on: Stand, counted: Counted) -> bool:
    """Has Prometheus seen so many bytes leave the first node?"""
    at = f'hook="{XMIT}",scope="node",{NODE1}'
    return all(
        on.prometheus.query(
            f'sum(bigtcp_skb_length_bytes_sum{{{at},ip_family="{family}"}}) >= '
            f"{sent.bytes}"
        )
        for family, sent in counted.node.items()
    )


def settled(on: Stand, since: float) -> float:
    """The time, where by then all targets were scraped since, and the nodes' rules
    evaluated; else 0. What a target had is gone for as long as its scrapes fail.
    """
    now = time.time()
    well = f"count(up == 1 and timestamp(up) > {since})"
    rules = f"min(timestamp(node:bigtcp_skb_length_bytes_sum:rate5m)) > {since}"
    scraped = on.prometheus.query(well, now) == [TARGETS]
    return now if scraped and on.prometheus.query(rules, now) else 0


@dataclass(frozen=True)
class Span:
    """Seconds since the epoch, from a quiet moment to another."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass
class World:
    """A stand after BIG TCP was `off`, `cut` at a device, and `on`: when the last two
    were. `before` and `after` are what had been counted around `on`, `alert` what
    alerted when it was cut, `results` what netperf said, off and on.
    """

    stand: Stand
    begun: float
    cut: Span
    alert: list[Sample]
    on: Span
    before: Counted
    after: Counted
    results: tuple[dict[Family, Netperf], dict[Family, Netperf]]

    def ask(self, promql: str, time: float | None = None) -> list[Sample]:
        return self.stand.prometheus.samples(promql, time)

    def sent(self, family: str) -> Sent:
        """By the first node's devices, with BIG TCP on."""
        return self.after.node[family].since(self.before.node[family])

    def sent_by_pod(self, family: str) -> Sent:
        """The same of the client's pod."""
        return self.after.pod[family].since(self.before.pod[family])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    begun = time.time()
    with stand(tmp_path_factory.mktemp("stand")) as on:
        off = on.traffic(2)
        on.big_tcp(BIG)
        on.cut(LEGACY)
        start = time.time()
        alerts = 'ALERTS{alertname="BigTCPSegmented",interface!=""}'

        def alerting() -> list[Sample] | None:
            """Of both families. A scrape that comes amid traffic begins its series:
            more of it must follow.
            """
            on.traffic(3)
            found = on.prometheus.samples(alerts)
            return found if len(found) == len(FAMILIES) else None

        alert = wait_until(alerting, "the alerts") or []
        cut = Span(start, wait_until(partial(settled, on, time.time()), "scrapes"))
        on.cut(BIG)
        # rate() does not reach back beyond where a counter was 0: let none be near.
        on.traffic(3)
        before = counters(on)
        wait_until(partial(scraped, on, before), "a scrape before the traffic")
        start = time.time()
        wait_until(partial(settled, on, start), "a quiet scrape")
        results = off, on.traffic(2)
        after = counters(on)
        wait_until(partial(scraped, on, after), "a scrape after the traffic")
        end = wait_until(partial(settled, on, time.time()), "what rules make of it")
        span = Span(start, end)
        yield World(on, begun, cut, alert, span, before, after, results)


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_query_finds_something(world: World, query: Query) -> None:
    expr = chosen(query.expr)
    assert world.ask(expr, world.on.end)
    if query.type != "table":
        found = world.stand.prometheus.get(
            "query_range",
            query=expr,
            start=str(world.begun),
            end=str(time.time()),
            step="1",
        )
        assert any(series["values"] for series in found["result"])


@pytest.mark.parametrize("name", NAMES)
def test_variables_find_something(world: World, name: str) -> None:
    dashboard = load(name)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert match
            values = world.stand.prometheus.get(
                f"label/{match[2]}/values", **{"match[]": chosen(match[1])}
            )
            assert values, variable["name"]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_change_of_ciliums_configuration_is_marked(
    world: World, name: str
) -> None:
    (annotation,) = load(name)["annotations"]["list"]
    assert annotation["useValueForTime"]
    (series,) = world.stand.prometheus.get(
        "query_range",
        query=chosen(annotation["expr"]),
        start=str(world.begun),
        end=str(time.time()),
        step="1",
    )["result"]
    assert world.stand.changed is not None
    milliseconds = {float(value) for _, value in series["values"]}
    assert milliseconds == {1000 * world.stand.changed}


def shown_by(
    world: World, name: str, panel: str, span: Span, **labels: str
) -> dict[str, float]:
    """By `refId`: the only value of each of a panel's queries with these labels, of
    that time.
    """
    choices = {"__rate_interval": f"{int(1000 * span.seconds)}ms"}
    found = {}
    for query in QUERIES:
        if (query.dashboard, query.panel) == (name, panel):
            (found[query.ref],) = (
                float(sample["value"][1])
                for sample in world.ask(chosen(query.expr, choices), span.end)
                if labels.items() <= sample["metric"].items()
            )
    return found


def row_of(
    world: World, name: str, table: str, span: Span, **labels: str
) -> dict[str, float]:
    """A row of a table, by the names of its columns."""
    (panel,) = (each for each in panels(name) if each["title"] == table)
    names = panel["transformations"][1]["options"]["renameByName"]
    return {
        names[f"Value #{ref}"]: value
        for ref, value in shown_by(world, name, table, span, **labels).items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_share_is_that_of_the_snapshot(world: World, family: str) -> None:
    sent = world.sent(family)
    assert sent.big_bytes > 0.9 * sent.bytes
    at = {"node": "node1", "interface": "eth0", "ip_family": family}
    share = shown_by(world, "node", "Bytes sent above 64 KiB", world.on, **at)
    assert share["A"] == pytest.approx(sent.big_bytes / sent.bytes, rel=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_recorded_share_is_that_of_the_snapshot(world: World, family: str) -> None:
    """Since the agent's start: that is within the rules' five minutes."""
    assert world.on.end - world.begun < 290
    sent = world.after.node[family]
    at = f'{{hook="{XMIT}",scope="node",{NODE1},ip_family="{family}"}}'
    share = world.stand.prometheus.query(
        f"node:bigtcp_big_skb_bytes:rate5m{at}"
        f" / node:bigtcp_skb_length_bytes_sum:rate5m{at}",
        world.on.end,
    )
    assert share == [pytest.approx(sent.big_bytes / sent.bytes, rel=1e-2)]


@pytest.mark.parametrize(("version", "family"), [("IPv4", "ipv4"), ("IPv6", "ipv6")])
def test_the_heatmap_is_the_snapshots_histogram(
    world: World, version: str, family: str
) -> None:
    sent = world.sent(family)
    edges = {
        le: shown_by(world, "node", f"{version} sent", world.on, le=le)["A"]
        for le in ("65536.0", "+Inf")
    }
    big = 1 - edges["65536.0"] / edges["+Inf"]
    assert big == pytest.approx(sent.big_skbs / sent.skbs, rel=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_packets_per_skb_and_the_longest_are_those_of_the_snapshot(
    world: World, family: str
) -> None:
    at = {"node": "node1", "ip_family": family}
    title = "Wire packets per packet in the stack"
    sent = world.sent(family)
    packets = shown_by(world, "node", title, world.on, **at)["A"]
    assert packets == pytest.approx(sent.segments / sent.skbs, rel=1e-2)
    longest = shown_by(world, "node", "Longest packet", world.on, **at)["A"]
    assert longest == world.after.longest[family] > MESSAGE_BYTES


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_queued_leaves_in_pieces_and_then_whole(
    world: World, family: str
) -> None:
    at = {"node": "node1", "interface": "eth0", "ip_family": family}
    both, share = "Packets above 64 KiB: queued, and left whole", "Cut in software"
    packets = shown_by(world, "node", both, world.cut, **at)
    assert packets["A"] > 100
    assert packets["B"] < 0.02 * packets["A"]
    cut = shown_by(world, "node", share, world.cut, **at)["A"]
    assert cut == pytest.approx(1, abs=0.02)
    packets = shown_by(world, "node", both, world.on, **at)
    assert packets["A"] > 100
    assert packets["B"] == pytest.approx(packets["A"], rel=0.02)
    cut = shown_by(world, "node", share, world.on, **at)["A"]
    assert cut == pytest.approx(0, abs=0.02)


def test_devices_have_the_sizes_of_the_snapshot(world: World) -> None:
    (device,) = (
        each for each in told(world.stand, 0)["devices"] if each["name"] == "eth0"
    )
    sizes = device["sizes"]
    at = {"node": "node1", "interface": "eth0"}
    assert row_of(world, "node", "Sizes of the devices", world.on, **at) == {
        "GSO IPv4": sizes["gso_ipv4_max"],
        "GSO IPv6": sizes["gso_max"],
        "GRO IPv4": sizes["gro_ipv4_max"],
        "GRO IPv6": sizes["gro_max"],
        "TSO, by the driver": sizes["tso_max"],
    }
    assert sizes["gso_max"] == sizes["gso_ipv4_max"] == BIG < sizes["tso_max"]


@pytest.mark.parametrize("direction", ["rx", "tx"])
def test_all_is_covered(world: World, direction: str) -> None:
    at = {"node": "node1", "interface": "eth0", "direction": direction}
    covered = shown_by(world, "node", "Coverage", world.on, **at)["A"]
    assert covered == pytest.approx(1, rel=0.01)


def test_a_pod_has_sent_and_received_what_netperf_says(world: World) -> None:
    """And as much of it above 64 KiB as the snapshot says."""
    pod = world.stand.client.space.name
    row = row_of(world, "pods", "Pods now", world.on, namespace="default", pod=pod)
    _, on = world.results
    transactions = sum(
        found.transactions_per_second * found.elapsed_seconds for found in on.values()
    )
    # rate() divides by the time between two scrapes, which come every two seconds.
    least = transactions * MESSAGE_BYTES / world.on.seconds
    most = transactions * MESSAGE_BYTES / (world.on.seconds - 4)
    for column in ("Bytes sent", "Bytes received"):
        assert 0.98 * least < row[column] < 1.02 * most
    for version, family in (("IPv4", "ipv4"), ("IPv6", "ipv6")):
        sent = world.sent_by_pod(family)
        share = row[f"Above 64 KiB {version} sent"]
        assert share == pytest.approx(sent.big_skbs / sent.skbs, rel=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_netperf_is_told_with_big_tcp_off_and_on(world: World, family: Family) -> None:
    off, on = (found[family].transactions_per_second for found in world.results)
    at = {"ip_family": family}
    assert row_of(world, "overview", "BIG TCP off and on", world.on, **at) == {
        "Off": pytest.approx(off),
        "On": pytest.approx(on),
        "Difference": pytest.approx(on / off - 1),
    }


def states(on: Stand) -> dict[tuple[str, str], str]:
    """What the agents themselves say, by node and family."""
    return {
        (f"node{node.number}", family): said["state"]
        for number, node in enumerate(on.nodes)
        for family, said in told(on, number)["families"].items()
    }


def shown(world: World) -> dict[tuple[str, str], str]:
    """The same in the words of the dashboard's own value mapping."""
    verdict = next(
        panel for panel in load("node")["panels"] if panel["title"] == "Verdict"
    )
    words = verdict["fieldConfig"]["defaults"]["mappings"][0]["options"]
    return {
        (sample["metric"]["node"], sample["metric"]["ip_family"]): words[
            sample["value"][1]
        ]["text"]
        for sample in world.ask(chosen(verdict["targets"][0]["expr"]))
    }


def test_the_verdict_is_what_the_agents_say(world: World) -> None:
    def same() -> dict[tuple[str, str], str] | None:
        said = shown(world)
        return said if said == states(world.stand) else None

    said = wait_until(same, "Prometheus to say the same")
    assert said
    assert len(said) == 4
    assert set(said.values()) <= {"segmented", "partial", "active", "idle"}


def test_pods_are_counted_as_the_agents_do(world: World) -> None:
    limits = [
        limit
        for number in range(len(world.stand.nodes))
        for pod in told(world.stand, number)["pods"]
        for limit in pod["limits"].items()
    ]
    for family in FAMILIES:
        for state, big in (("big", True), ("legacy", False)):
            at = {"ip_family": family, "state": state}
            pods = [(family, limit > LEGACY) for family, limit in limits]
            count = shown_by(world, "overview", "Pods", world.on, **at)["A"]
            assert count == pods.count((family, big)) > 0


def test_the_device_that_cut_was_named(world: World) -> None:
    assert world.alert
    for sample in world.alert:
        at: dict[str, Any] = sample["metric"]
        assert (at["node"], at["interface"]) == ("node1", "eth0")


def test_pods_that_stay_behind_are_told(world: World) -> None:
    found = {
        (sample["metric"]["node"], sample["metric"]["ip_family"]): sample["value"][1]
        for sample in world.ask('ALERTS{alertname="BigTCPPodsToRestart"}', world.on.end)
    }
    assert found == {("node1", "ipv4"): "1", ("node1", "ipv6"): "1"}


@pytest.mark.parametrize("record", sorted(recorded()))
def test_every_rule_records_something(world: World, record: str) -> None:
    # Groups of rules are evaluated one after the other, each at its own time.
    wait_until(lambda: world.ask(record), f"Prometheus to record {record}")


def test_no_rule_has_failed(world: World) -> None:
    groups = world.stand.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    files = [yaml.safe_load(file.read_text()) for file in RULES.glob("*.yaml")]
    written = [
        rule for file in files for group in file["groups"] for rule in group["rules"]
    ]
    names = [rule.get("record") or rule["alert"] for rule in written]
    assert sorted(rule["name"] for rule in rules) == sorted(names)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_a_node_has_few_recorded_series(world: World) -> None:
    series = 'count by (node) ({__name__=~"node:.+"})'
    for sample in world.ask(series, world.on.end):
        assert 10 < int(sample["value"][1]) < 100


def test_netperf_stands_beside_the_histograms(world: World) -> None:
    """In one expression: transactions/s, the share, and what Cilium has applied."""
    on = "on (cluster, node, ip_family)"
    joined = world.ask(
        'node:bigtcp_netperf_transactions_per_second:max{big_tcp="on"}'
        f' and {on} node:bigtcp_big_skb_bytes:rate5m{{scope="node",hook="{XMIT}"}} > 0'
        f" and {on} node:bigtcp_cilium_max_size_bytes:max > 65536",
        world.on.end,
    )
    assert {sample["metric"]["ip_family"] for sample in joined} == {"ipv4", "ipv6"}


def tiles(world: World) -> dict[str, float]:
    """The overview's single numbers."""
    return {
        query.panel: float(sample["value"][1])
        for query in QUERIES
        if (query.dashboard, query.type) == ("overview", "stat")
        for sample in world.ask(chosen(query.expr))
    }


def test_the_overview_counts_the_nodes_of_a_state(world: World) -> None:
    """In the end: the pod that was not restarted, and a node without traffic."""
    at_rest = {
        ("node1", "ipv4"): "partial",
        ("node1", "ipv6"): "partial",
        ("node2", "ipv4"): "idle",
        ("node2", "ipv6"): "idle",
    }
    wait_until(lambda: states(world.stand) == at_rest, "the agents to be at rest")
    expected = {
        "Nodes": 2,
        "Active, IPv4": 0,
        "Active, IPv6": 0,
        "Slower than off": 0,
        "Refused": 0,
        "Partial": 1,
    }
    wait_until(lambda: tiles(world) == expected, "Prometheus to say the same")
