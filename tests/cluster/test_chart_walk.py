# SPDX-License-Identifier: Apache-2.0
"""The stages once more, through the chart alone: what `check` and `top` say in the
agents' pods, and which alerts fire. On the way, where all is well: netperf by one
value of the chart's, and every query of the dashboards.

What goes wrong at no stage is in test_chart_alerts.py.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pytest

from agent.lab.netns import wait_until
from tests.charts.dashboards import Query, chosen, queries
from tests.charts.test_dashboards import recorded
from tests.cluster import stages
from tests.cluster.cluster import BIG, LEGACY, Cluster
from tests.cluster.observed import (
    BOTH,
    FAMILIES,
    Alerts,
    World,
    expect,
    load,
    netperf_record,
    observed,
    upgrade,
)
from tests.cluster.test_walk import EXPECTED
from tests.process import fetch

VALUES = (
    *("--set=agent.maxPods=16", "--set=netperf.enabled=true"),
    # Of longer messages: what comes after is faster, whatever else this machine does.
    "--set=netperf.message=400000:400000,netperf.hold=300",
    "--set=netperf.seconds=1,netperf.repeats=1",
)
QUERIES = list(queries())
XMIT = 'hook="net_dev_start_xmit"'
HOOKS = ("net_dev_start_xmit", "netif_receive_skb", "net_dev_queue")


class Stage(NamedTuple):
    """What is told on each node, and where which alert fires; of `top`, the families
    of which most that a node sends is big.
    """

    begin: Callable[[Cluster], None]
    told: tuple[int, list[str], list[str]]
    big: set[str]
    alerts: Alerts


def wanted(cluster: Cluster) -> None:
    """The ConfigMap asks for it, and nobody restarts Cilium."""
    cluster.configure_cilium(enable_ipv4_big_tcp="true", enable_ipv6_big_tcp="true")


WANTED = (5, ["refused", "refused"], ["C12", "C12"])
STAGES = {
    "off": Stage(stages.off, EXPECTED["off"], set(), {}),
    "wanted": Stage(wanted, WANTED, set(), {"BigTCPNotApplied": BOTH}),
    "enabled": Stage(
        stages.enabled, EXPECTED["enabled"], set(), {"BigTCPPodsToRestart": BOTH}
    ),
    "cut": Stage(stages.cut, EXPECTED["cut"], set(FAMILIES), {"BigTCPSegmented": BOTH}),
    "on": Stage(stages.on, EXPECTED["on"], set(FAMILIES), {}),
    "legacy": Stage(
        stages.legacy, EXPECTED["legacy"], {"ipv4"}, {"BigTCPDropped": BOTH}
    ),
}


@pytest.fixture(scope="module")
def world(
    stocked: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """netperf has run once, with BIG TCP off, and is gone."""
    folder = tmp_path_factory.mktemp("prometheus")
    try:
        with observed(stocked, folder, *VALUES) as made:
            netperf_results(made, "off")
            upgrade(made.release, "netperf.enabled=false")
            yield made
    finally:
        stages.off(stocked)


def netperf_results(world: World, big_tcp: str) -> dict[str, float]:
    """Transactions a second by family, once they are recorded: what netperf says is
    gone with its pod, and a rule may need one round more for what it looks at beside.
    """
    speed = f'node:bigtcp_netperf_transactions_per_second:max{{big_tcp="{big_tcp}"}}'

    def results() -> dict[str, float]:
        found = {
            each["metric"]["ip_family"]: float(each["value"][1])
            for each in world.prometheus.samples(speed)
        }
        return found if len(found) == len(FAMILIES) else {}

    return wait_until(results, "netperf's results")


Answers = list[tuple[int, dict[str, Any]]]


def under_load(world: World) -> tuple[Answers, Answers]:
    """What `check` and `top` tell on each node, while netperf runs in each family."""
    with ThreadPoolExecutor(2 * len(world.cluster.nodes)) as pool:

        def ask(command: str, *flags: str) -> list[Any]:
            return [
                pool.submit(world.release.ask, node.name, command, *flags)
                for node in world.cluster.nodes
            ]

        checks = ask("check", "--seconds=8")
        tops = ask("top", "--once", "--interval=8")
        while not all(each.done() for each in (*checks, *tops)):
            load(world.cluster)
        return [each.result() for each in checks], [each.result() for each in tops]


def walk(world: World, stage: Stage) -> None:
    stage.begin(world.cluster)
    code, states, findings = stage.told
    checks, tops = under_load(world)
    for its_code, answer in checks:
        assert [answer["families"][name]["state"] for name in FAMILIES] == states
        assert [each["id"] for each in answer["findings"]] == findings
        assert its_code == code
    for its_code, answer in tops:
        assert its_code == 0
        assert stage.big == {
            row["ip_family"]
            for row in answer["rows"]
            if row["scope"] == "node" and (row["big_share"] or 0) > 0.5
        }
    expect(world, stage.alerts)


@pytest.mark.parametrize("stage", ["off", "wanted", "enabled", "cut", "on"])
def test_stage(world: World, stage: str) -> None:
    walk(world, STAGES[stage])


def test_netperf_beside_the_histograms(world: World) -> None:
    """By one value of the chart's, with Cilium's state, in PromQL."""
    _, release, server, _ = world
    upgrade(
        release, "netperf.enabled=true,netperf.message=80000:80000,netperf.hold=300"
    )
    results = netperf_results(world, "on")
    (client,) = release.pods("netperf-client")
    (at,) = release.pods("netperf-server")
    assert client != at
    on = "on (cluster, node, ip_family)"
    joined = (
        'node:bigtcp_netperf_transactions_per_second:max{big_tcp="on"}'
        f" and {on} bigtcp_netperf_big_bytes_ratio > 0.9"
        f" and {on} bigtcp_big_skb_bytes_total{{{XMIT}}} > 0"
        f' and {on} node:bigtcp_verdict:max{{state="active"}}'
        f" and {on} bigtcp_cilium_max_size_bytes == 196608"
    )
    expected = {(client, family): speed for family, speed in results.items()}

    def side_by_side() -> bool:
        load(world.cluster)  # or it is active no more
        return expected == {
            (each["metric"]["node"], each["metric"]["ip_family"]): float(
                each["value"][1]
            )
            for each in server.samples(joined)
        }

    wait_until(side_by_side, "all of it side by side")
    (job,) = release.kubectl("get", "jobs", "--output=name").split()
    record = netperf_record(release, job)
    assert record["schema"] == "bigtcp.netperf/v1"
    assert record["node"]["states"] == dict.fromkeys(FAMILIES, "active")
    for family in FAMILIES:
        (run,) = record["families"][family]["runs"]
        assert run["transactions_per_second"] == results[family]
        assert run["sent"]["big_bytes"] > 0.9 * run["sent"]["bytes"]
        assert record["node"]["cilium"]["big_tcp"][family]["max_gso"] == BIG
    upgrade(release, "netperf.enabled=false")
    assert release.pods("netperf-server") == {}


def in_the_walk(world: World, promql: str) -> list[dict[str, Any]]:
    """Series since it began: where all is well, a table of what is wrong is empty."""
    found: list[dict[str, Any]] = world.prometheus.get(
        "query_range",
        query=promql,
        start=str(world.begun),
        end=str(time.time()),
        step="1",
    )["result"]
    return found


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_a_query_finds_something(world: World, query: Query) -> None:
    assert in_the_walk(world, chosen(query.expr))


@pytest.mark.parametrize("record", sorted(recorded()))
def test_a_rule_records_something(world: World, record: str) -> None:
    assert in_the_walk(world, record)


def test_no_rule_has_failed(world: World) -> None:
    groups = world.prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


def sent(world: World, node: str) -> dict[str, tuple[int, int]]:
    """Bytes and big bytes that a node's uplink sent, by family, by its agent."""
    (place,) = (each for each in world.cluster.nodes if each.name == node)
    status, text = place.call(lambda: fetch("http://127.0.0.1:19715/api/snapshot"))
    assert status == 200
    return {
        row["ip_family"]: (row["bytes"], row["big_bytes"])
        for row in json.loads(text)["counters"]
        if (row["scope"], row["device"]) == ("node", "eth0")
        and row["hook"] == "net_dev_start_xmit"
        and row["ip_family"] in FAMILIES
    }


def scraped(world: World, node: str, counted: dict[str, tuple[int, int]]) -> bool:
    at = f'{XMIT},interface="eth0",node="{node}"'
    return all(
        world.prometheus.query(
            f'bigtcp_skb_length_bytes_sum{{{at},ip_family="{family}"}} >= {total}'
        )
        for family, (total, _) in counted.items()
    )


@pytest.mark.parametrize("node", sorted(BOTH))
def test_the_share_is_that_of_the_snapshot(world: World, node: str) -> None:
    before = sent(world, node)
    wait_until(partial(scraped, world, node, before), "a scrape before the traffic")
    since = time.time()
    up = f'up{{endpoint="metrics",node="{node}"}}'
    quiet = f"{up} == 1 and timestamp({up}) > {since}"  # from where rate() goes on
    wait_until(lambda: world.prometheus.query(quiet), "a scrape without traffic")
    load(world.cluster)
    after = sent(world, node)
    wait_until(partial(scraped, world, node, after), "a scrape after the traffic")
    window = {"__rate_interval": f"{int(1000 * (time.time() - since))}ms"}
    (query,) = (
        each
        for each in QUERIES
        if (each.dashboard, each.panel) == ("node", "Bytes sent above 64 KiB")
    )
    shares = {
        each["metric"]["ip_family"]: float(each["value"][1])
        for each in world.prometheus.samples(chosen(query.expr, window))
        if (each["metric"]["node"], each["metric"]["interface"]) == (node, "eth0")
        and each["metric"]["ip_family"] in FAMILIES
    }
    expected = {
        family: (after[family][1] - big) / (after[family][0] - total)
        for family, (total, big) in before.items()
    }
    assert shares == pytest.approx(expected, rel=1e-2)
    assert min(expected.values()) > 0.9


def test_pods_are_told_apart_by_their_own_names(world: World) -> None:
    """Not by the agent's: the monitor honours labels."""
    of_pods = 'count by (namespace) (bigtcp_pod_skb_length_bytes_count{pod!=""})'
    spaces = {each["metric"]["namespace"] for each in world.prometheus.samples(of_pods)}
    assert "default" in spaces


def test_a_device_that_was_raised_is_lowered(world: World) -> None:
    node = world.cluster.nodes[0]
    before = node.sizes("eth0")
    assert before.gro_ipv4_max is not None
    node.set_size("eth0", gro_max=LEGACY, gro_ipv4_max=LEGACY)
    try:
        expect(world, {"BigTCPNotApplied": {node.name}})
    finally:
        node.set_size("eth0", gro_max=before.gro_max, gro_ipv4_max=before.gro_ipv4_max)
    expect(world, {})


def test_legacy(world: World) -> None:
    walk(world, STAGES["legacy"])
