# SPDX-License-Identifier: Apache-2.0
"""The chart installed, and a Prometheus that found the agents by its monitor and has
its rules, in a hurry.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.errors import AgentError
from agent.lab.netns import wait_until
from tests.cluster import operated
from tests.cluster import release as releases
from tests.cluster.cluster import Cluster
from tests.cluster.prometheus import hurried, prometheus
from tests.cluster.release import Release
from tests.prometheus import Prometheus

FAMILIES = ("ipv4", "ipv6")
BOTH = {"node1", "node2"}
Alerts = dict[str, set[str]]
VALUES = (
    *("--set=prometheusRule.enabled=true", "--set=serviceMonitor.enabled=true"),
    "--set=serviceMonitor.relabelings[0].targetLabel=cluster",
    "--set=serviceMonitor.relabelings[0].replacement=lab",
)


class World(NamedTuple):
    cluster: Cluster
    release: Release
    prometheus: Prometheus
    begun: float


@contextlib.contextmanager
def observed(cluster: Cluster, folder: Path, *flags: str) -> Iterator[World]:
    """Installed by Helm with these flags beside VALUES. Files go to the folder."""
    begun = time.time()
    with releases.installed(cluster, "helm4", *VALUES, *flags) as release:
        scrape = operated.scrape_configs(release, folder)
        rules = hurried(operated.groups(release))
        with prometheus(cluster, folder, scrape, rules) as server:
            yield World(cluster, release, server, begun)


def upgrade(release: Release, values: str) -> None:
    release.apply("upgrade", "--reuse-values", f"--set={values}")
    release.rolled_out()


def load(cluster: Cluster) -> None:
    """netperf for a second, in both families at once."""
    with ThreadPoolExecutor(len(FAMILIES)) as pool:
        list(pool.map(cluster.netperf, FAMILIES))


def firing(server: Prometheus) -> Alerts:
    """Alerts, whatever their severity, and the nodes where they fire."""
    found: Alerts = {}
    for sample in server.samples('ALERTS{alertstate="firing"}'):
        at = sample["metric"]
        found.setdefault(at["alertname"], set()).add(at.get("node", ""))
    return found


def expect(
    world: World,
    alerts: Alerts,
    meanwhile: Callable[[Cluster], None] = load,
    seconds: int = 150,
) -> None:
    """These fire and no others, and stay so for five seconds."""
    since: list[float] = []
    found: list[Alerts] = []  # as they came and went

    def settled() -> bool:
        meanwhile(world.cluster)
        now = firing(world.prometheus)
        if now != alerts:
            since.clear()
        else:
            since.append(time.monotonic())
        if found[-1:] != [now]:
            found.append(now)
        return bool(since) and since[-1] - since[0] > 5

    try:
        wait_until(settled, "the alerts", seconds)
    except AgentError:
        now = [each["metric"] for each in world.prometheus.samples("ALERTS")]
        pytest.fail(f"not {alerts}, but one after the other {found}; now {now}")


def netperf_record(release: Release, job: str) -> dict[str, Any]:
    """What a Job of netperf's has printed, which it does before it holds it."""

    def printed() -> dict[str, Any]:
        with contextlib.suppress(AgentError, ValueError):  # no pod yet; no record yet
            said = release.kubectl("logs", job)  # what is for people stands around it
            record, _ = json.JSONDecoder().raw_decode(said, said.index("{"))
            assert isinstance(record, dict)
            return record
        return {}

    return wait_until(printed, "netperf's record", 120)
