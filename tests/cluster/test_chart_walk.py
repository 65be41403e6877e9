# SPDX-License-Identifier: Apache-2.0
"""The five stages once more, through the chart alone: what `check` and `top` say in
the agents' pods, and which alert stands, in a Prometheus that found the agents.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.lab.netns import wait_until
from tests.cluster import release as releases
from tests.cluster import stages
from tests.cluster.cluster import Cluster
from tests.cluster.prometheus import prometheus
from tests.cluster.release import Release
from tests.cluster.test_walk import EXPECTED, FAMILIES
from tests.prometheus import Prometheus

# Stands or is pending: the minutes that an alert waits are promtool's business.
ALERTS = {
    "off": set[str](),
    "enabled": {"BigTCPPodsToRestart"},
    "cut": {"BigTCPSegmented"},
    "on": set[str](),
    "legacy": {"BigTCPDropped"},
}


class World(NamedTuple):
    cluster: Cluster
    release: Release
    prometheus: Prometheus


@pytest.fixture(scope="module")
def world(
    stocked: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    try:
        with (
            releases.installed(stocked, "helm4") as release,
            prometheus(stocked, folder) as server,
        ):
            yield World(stocked, release, server)
    finally:
        stages.off(stocked)


Answers = list[tuple[int, dict[str, Any]]]


def under_load(world: World) -> tuple[Answers, Answers]:
    """What `check` and `top` tell on each node, while netperf runs in each family."""
    with ThreadPoolExecutor(2 * len(world.cluster.nodes)) as pool:

        def ask(command: str, *flags: str) -> list[Any]:
            return [
                pool.submit(world.release.ask, node.name, command, *flags)
                for node in world.cluster.nodes
            ]

        checks = ask("check", "--seconds=6")
        tops = ask("top", "--once", "--interval=6")
        for family in FAMILIES:
            world.cluster.netperf(family)
        return [each.result() for each in checks], [each.result() for each in tops]


def alerts(server: Prometheus) -> set[str]:
    """Names of those that stand or are pending, but for what is only information."""
    standing = server.samples('ALERTS{severity!="info"}')
    return {each["metric"]["alertname"] for each in standing}


@pytest.mark.parametrize("stage", stages.STAGES)
def test_stage(world: World, stage: str) -> None:
    stages.STAGES[stage](world.cluster)
    code, states, findings = EXPECTED[stage]
    checks, tops = under_load(world)
    for its_code, answer in checks:
        assert [answer["families"][name]["state"] for name in FAMILIES] == states
        assert [each["id"] for each in answer["findings"]] == findings
        assert its_code == code
    for its_code, answer in tops:
        assert its_code == 0
        big = {
            row["ip_family"]
            for row in answer["rows"]
            if row["scope"] == "node" and (row["big_share"] or 0) > 0.5
        }
        assert ("ipv4" in big) is (stage in {"cut", "on", "legacy"})

    def settled() -> bool:
        world.cluster.netperf("ipv4")
        world.cluster.netperf("ipv6")
        return alerts(world.prometheus) == ALERTS[stage]

    wait_until(settled, f"{ALERTS[stage] or 'no alert'}", 90)
