# SPDX-License-Identifier: Apache-2.0
"""However an agent ends under load: it is back soon, nothing of it is left in the
kernel, and rate() goes on over its counters.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.lab.netns import wait_until
from agent.lab.netperf import MESSAGE_BYTES
from tests.cluster import cgroups
from tests.cluster import release as releases
from tests.cluster.cluster import Cluster
from tests.cluster.prometheus import by_annotations, prometheus
from tests.cluster.release import HOOKS, NAME, NAMESPACE, Release
from tests.kernel.test_no_memory import spend
from tests.process import bpf_programs, fetch, programs_of
from tests.prometheus import Prometheus

AT = 'hook="net_dev_start_xmit",interface="eth0",ip_family="ipv4"'


class World(NamedTuple):
    release: Release
    prometheus: Prometheus


@pytest.fixture(scope="module")
def world(
    stocked: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    with (
        releases.installed(stocked, "helm4") as release,
        prometheus(stocked, folder, by_annotations(stocked)) as server,
    ):
        sent = f"bigtcp_skb_length_bytes_sum{{{AT}}}"

        def scraped() -> bool:  # or the load would begin the series
            stocked.netperf("ipv4")
            return len(server.query(sent)) == len(stocked.nodes)

        wait_until(scraped, "both agents to be scraped")
        yield World(release, server)


def kill(release: Release, node: str) -> None:
    os.kill(releases.process_on(release, node), signal.SIGKILL)


def take_memory(release: Release, node: str) -> None:
    """Allow its container no more than it has, and ask it for something."""
    pid = releases.process_on(release, node)
    (place,) = (each for each in release.cluster.nodes if each.name == node)
    group = cgroups.memory_of(pid)

    def over() -> bool:
        with contextlib.suppress(FileNotFoundError):  # it is gone
            spend(group)
        place.call(lambda: fetch("http://127.0.0.1:19715/api/snapshot"))
        return not alive(pid)

    wait_until(over, "the kernel to end it")


def evict(release: Release, node: str) -> None:
    pod = release.pods()[node]["metadata"]["name"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    release.kubectl("create", "--raw", path, "--filename=-", text=json.dumps(eviction))


def restart(release: Release, _: str) -> None:
    release.kubectl("rollout", "restart", f"daemonset/{NAME}")


@dataclass(frozen=True)
class Way:
    """How an agent ends, and where: the kubelet lets a container that ended twice in
    a row wait. `told`: what is known of it in the pod; None: the pod is another.
    """

    end: Callable[[Release, str], None]
    node: str
    told: tuple[str, int] | None = None
    seconds: int = 14  # of load: from before it to after it


WAYS = {
    "killed": Way(kill, "node1", ("Error", 137)),
    "out_of_memory": Way(take_memory, "node2", ("OOMKilled", 137)),
    "evicted": Way(evict, "node1"),
    "restarted": Way(restart, "node2", seconds=24),  # one node after the other
}


def last_end(release: Release, node: str) -> tuple[str, int] | None:
    """Why the container before this one ended, and its exit code."""
    now = releases.ready(release, node)
    end = now["lastState"].get("terminated") if now else None
    return (end["reason"], end["exitCode"]) if end else None


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def gap_of(world: World, way: Way) -> float:
    """Seconds from the end of the old process to the moment that the kubelet tells the
    new one ready: with another pod that is what Kubernetes needs to make it, too.
    """
    release, server = world
    series = f'bigtcp_skb_length_bytes_sum{{{AT},node="{way.node}"}}'
    pid = releases.process_on(release, way.node)
    old = releases.ready(release, way.node)
    assert old
    programs = programs_of(pid)
    assert len(programs) == HOOKS

    def back() -> dict[str, Any]:
        now = releases.ready(release, way.node)
        return now if now and now["containerID"] != old["containerID"] else {}

    def window() -> str:
        """The series since the test began."""
        return f"{series}[{1 + int(1000 * (time.time() - begun))}ms]"

    def since(function: str) -> float:
        return sum(server.query(f"{function}({window()})"))

    def last_of_the_old() -> float:
        """When it was scraped last."""
        (found,) = server.samples(window())
        samples = [(float(at), float(value)) for at, value in found["values"]]
        (last,) = (then[0] for then, now in pairwise(samples) if now[1] < then[1])
        return last

    begun = time.time()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(release.cluster.netperf, "ipv4", way.seconds)
        wait_until(lambda: since("changes") >= 4, "the load to be scraped")
        way.end(release, way.node)
        wait_until(lambda: not alive(pid), "its end")
        ended = time.time()
        new = wait_until(back, "the agent to be back")
        here = time.time()
        found = load.result()
    sent = found.transactions_per_second * MESSAGE_BYTES * found.elapsed_seconds
    if way.told:
        assert new["restartCount"] == 1
        wait_until(lambda: last_end(release, way.node) == way.told, f"{way.told}")
    wait_until(lambda: not programs & bpf_programs(), "its programs to be gone")
    assert len(programs_of(releases.process_on(release, way.node))) == HOOKS
    # Prometheus takes up a new target after five seconds.
    wait_until(lambda: since("resets") == 1, "its counters to begin anew")
    counted = since("rate") * (time.time() - begun)
    missed = (here - last_of_the_old()) / way.seconds
    gap = here - ended
    print(f"back after {gap:.1f} s; {counted / sent:.2f}, at least {1 - missed:.2f}")
    assert 0.9 * (1 - missed) * sent < counted < 1.1 * sent
    return gap


def anew(world: World, way: Way) -> None:
    """Another pod on a node: the kubelet makes none wait for how the last one ended.

    It is scraped, and counts more than the next one will, whose fall is then seen.
    """
    release, server = world
    pid = releases.process_on(release, way.node)
    process = f'process_start_time_seconds{{node="{way.node}"}}'
    old = server.query(process)
    evict(release, way.node)
    wait_until(lambda: not alive(pid), "its end")
    wait_until(lambda: releases.ready(release, way.node), "another pod")
    wait_until(lambda: server.query(process) not in ([], old), "it to be scraped")
    release.cluster.netperf("ipv4", way.seconds)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_back_within_five_seconds(world: World, way: Way) -> None:
    """What else the machine does can only make it later: the soonest of three."""
    gaps = [gap_of(world, way)]
    while gaps[-1] >= 5 and len(gaps) < 3:
        anew(world, way)
        gaps.append(gap_of(world, way))
    assert gaps[-1] < 5, gaps
