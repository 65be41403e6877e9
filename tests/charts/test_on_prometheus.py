# SPDX-License-Identifier: Apache-2.0
"""Every query of every dashboard, and every rule, on a real Prometheus that scrapes
real agents: an answer, and the right one.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from agent.lab.netns import wait_until
from agent.snapshot.model import Hook
from tests.charts.dashboards import NAMES, Query, chosen, load, queries
from tests.charts.stand import BIG, LEGACY, Stand, stand
from tests.charts.test_dashboards import recorded
from tests.process import fetch
from tests.prometheus import Sample

XMIT = Hook.NET_DEV_START_XMIT
QUERIES = list(queries())
NODE1 = 'node="node1"'


def counters(on: Stand, node: int) -> dict[str, tuple[int, int]]:
    """Bytes and big bytes that a node's own devices sent, by family, by its agent."""
    address = on.addresses[node]
    found = on.nodes[node].space.call(lambda: fetch(f"{address}/api/snapshot"))
    sums: dict[str, tuple[int, int]] = {}
    for row in json.loads(found[1])["counters"]:
        if (row["scope"], row["hook"]) == ("node", XMIT):
            total, big = sums.get(row["ip_family"], (0, 0))
            sums[row["ip_family"]] = (total + row["bytes"], big + row["big_bytes"])
    return sums


def scraped(on: Stand, counted: dict[str, tuple[int, int]]) -> bool:
    """Has Prometheus seen so many bytes leave the first node?"""
    at = f'hook="{XMIT}",scope="node",{NODE1}'
    return all(
        on.prometheus.query(
            f'sum(bigtcp_skb_length_bytes_sum{{{at},ip_family="{family}"}}) >= {total}'
        )
        for family, (total, _) in counted.items()
    )


@dataclass
class World:
    """A stand after BIG TCP was off, defeated at a device, and on. `since` is when it
    was on and `before` what had been counted then; `cut` what alerted before.
    """

    stand: Stand
    begun: float
    since: float
    before: dict[str, tuple[int, int]]
    after: dict[str, tuple[int, int]]
    cut: list[Sample]

    def ask(self, promql: str) -> list[Sample]:
        return self.stand.prometheus.samples(promql)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    begun = time.time()
    with stand(tmp_path_factory.mktemp("stand")) as on:
        on.traffic(2)
        on.big_tcp(BIG)
        on.cut(LEGACY)
        on.traffic(2)
        alerts = 'ALERTS{alertname="BigTCPSegmented",interface!=""}'
        wait_until(lambda: on.prometheus.query(alerts), "the alert", 30)
        cut = on.prometheus.samples(alerts)
        on.cut(BIG)
        # rate() does not reach back beyond where a counter was 0: let none be near.
        on.traffic(2)
        before = counters(on, 0)
        wait_until(partial(scraped, on, before), "a scrape before the traffic", 30)
        since = time.time()
        on.traffic(3)
        after = counters(on, 0)
        wait_until(partial(scraped, on, after), "a scrape after the traffic", 30)
        yield World(on, begun, since, before, after, cut)


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_query_finds_something(world: World, query: Query) -> None:
    expr = chosen(query.expr)
    assert world.ask(expr)
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


def one(world: World, name: str, panel: str, **labels: str) -> float:
    """The only value of a panel with these labels, in the time since BIG TCP is on."""
    window = {"__rate_interval": f"{int(1000 * (time.time() - world.since))}ms"}
    values = [
        float(sample["value"][1])
        for query in QUERIES
        if (query.dashboard, query.panel) == (name, panel)
        for sample in world.ask(chosen(query.expr, window))
        if labels.items() <= sample["metric"].items()
    ]
    assert len(values) == 1, values
    return values[0]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_share_is_that_of_the_snapshot(world: World, family: str) -> None:
    total, big = world.after[family]
    total, big = total - world.before[family][0], big - world.before[family][1]
    assert big > 0.9 * total
    share = one(
        world,
        "node",
        "Bytes sent above 64 KiB",
        node="node1",
        interface="eth0",
        ip_family=family,
    )
    assert share == pytest.approx(big / total, rel=1e-2)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_recorded_share_is_that_of_the_snapshot(world: World, family: str) -> None:
    """Since the agent's start: that is within the rules' five minutes."""
    assert time.time() - world.begun < 290
    total, big = world.after[family]
    at = f'{{hook="{XMIT}",scope="node",{NODE1},ip_family="{family}"}}'
    share = world.stand.prometheus.query(
        f"node:bigtcp_big_skb_bytes:rate5m{at}"
        f" / node:bigtcp_skb_length_bytes_sum:rate5m{at}"
    )
    assert share == [pytest.approx(big / total, rel=1e-2)]


def states(on: Stand) -> dict[tuple[str, str], str]:
    """What the agents themselves say, by node and family."""
    found = {}
    for number, node in enumerate(on.nodes):
        url = f"{on.addresses[number]}/api/snapshot"
        picture = json.loads(node.space.call(partial(fetch, url))[1])
        for family, told in picture["families"].items():
            found[f"node{node.number}", family] = told["state"]
    return found


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
    wait_until(
        lambda: states(world.stand) == shown(world), "Prometheus to say the same", 30
    )
    assert len(shown(world)) == 4
    assert set(shown(world).values()) <= {"segmented", "partial", "active", "idle"}


def test_the_device_that_cut_was_named(world: World) -> None:
    assert world.cut
    for sample in world.cut:
        at: dict[str, Any] = sample["metric"]
        assert (at["node"], at["interface"]) == ("node1", "eth0")
    share = one(
        world,
        "node",
        "Cut in software",
        node="node1",
        interface="eth0",
        ip_family="ipv4",
    )
    assert share < 0.5  # it does so no more


def test_pods_that_stay_behind_are_told(world: World) -> None:
    found = {
        (sample["metric"]["node"], sample["metric"]["ip_family"]): sample["value"][1]
        for sample in world.ask('ALERTS{alertname="BigTCPPodsToRestart"}')
    }
    assert found == {("node1", "ipv4"): "1", ("node1", "ipv6"): "1"}


@pytest.mark.parametrize("record", sorted(recorded()))
def test_every_rule_records_something(world: World, record: str) -> None:
    # Groups of rules are evaluated one after the other, each at its own time.
    wait_until(lambda: world.ask(record), f"Prometheus to record {record}", 15)


def test_no_rule_has_failed(world: World) -> None:
    groups = world.stand.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(recorded()) + 1 + 10  # one name is recorded twice
    assert {rule["health"] for rule in rules} == {"ok"}


def test_a_node_has_few_recorded_series(world: World) -> None:
    for sample in world.ask('count by (node) ({__name__=~"node:.+"})'):
        assert 10 < int(sample["value"][1]) < 100


def test_netperf_stands_beside_the_histograms(world: World) -> None:
    """In one expression: transactions/s, the share, and what Cilium has applied."""
    on = "on (cluster, node, ip_family)"
    joined = world.ask(
        'node:bigtcp_netperf_transactions_per_second:max{big_tcp="on"}'
        f' and {on} node:bigtcp_big_skb_bytes:rate5m{{scope="node",hook="{XMIT}"}} > 0'
        f" and {on} node:bigtcp_cilium_max_size_bytes:max > 65536"
    )
    assert {sample["metric"]["ip_family"] for sample in joined} == {"ipv4", "ipv6"}
