# SPDX-License-Identifier: Apache-2.0
"""The five stages that a user walks through, told right on both nodes."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from agent.lab.netns import Namespace, wait_until
from tests.cluster import stages
from tests.cluster.cluster import LEGACY, STATE, Cluster
from tests.cluster.nodes import Node
from tests.cluster.observed import load
from tests.process import fetch

URL = "http://127.0.0.1:19715"
AGENT = (sys.executable, "-P", "-m", "agent")
FAMILIES = ("ipv4", "ipv6")
Said = dict[str, Any]  # states, findings and more, in one form for all who tell them


# Below the node's own /proc a process without capabilities finds no thread-self/net;
# below a new one, as a container has, it does.
_WITH_PROC = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t proc proc /proc && exec "$@"',
    "sh",
)


@contextlib.contextmanager
def running_agent(node: Node) -> Iterator[subprocess.Popen[str]]:
    """An agent on a node, as the DaemonSet's would be: its network is the node's, and
    so are its files: without capabilities it may not look into /proc/PID/root.
    """
    flags = (
        *("--listen", "127.0.0.1:19715"),
        *("--cilium-socket", "/run/cilium/cilium.sock"),
        *("--node-name", node.name, "--kubeconfig", str(STATE / "kubeconfig")),
        *("--max-pods", "16"),
    )
    process = subprocess.Popen(
        node.command(*_WITH_PROC, *AGENT, "run", *flags),
        stderr=subprocess.PIPE,
        text=True,
    )

    def ready() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return node.call(lambda: fetch(f"{URL}/readyz"))[0] == 200

    try:
        wait_until(ready, f"the agent of {node.name}")
        yield process
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said, said


@pytest.fixture(scope="module", autouse=True)
def agents(cluster: Cluster) -> Iterator[list[subprocess.Popen[str]]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running_agent(node)) for node in cluster.nodes]


def told(node: Node, *flags: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `check` on a node."""
    argv = Namespace.command(node, *AGENT, "check", "-o", "json", *flags)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


def under_load(cluster: Cluster) -> list[tuple[int, dict[str, Any]]]:
    """What each node tells while netperf runs in each family, and after its agent has
    asked Cilium anew, which it does every five seconds.
    """
    with ThreadPoolExecutor(len(cluster.nodes)) as pool:
        answers = [pool.submit(told, node, "--seconds=8") for node in cluster.nodes]
        while not all(answer.done() for answer in answers):
            load(cluster)
        return [answer.result() for answer in answers]


def scraped(node: Node) -> list[Sample]:
    """Every series of a node's agent."""
    status, text = node.call(lambda: fetch(f"{URL}/metrics"))
    assert status == 200
    families = text_string_to_metric_families(text)
    return [sample for family in families for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float | None:
    for sample in samples:
        if sample.name == name and sample.labels == labels:
            return float(sample.value)
    return None


def said_by_metrics(samples: list[Sample]) -> Said:
    def of(name: str, **labels: str) -> dict[str, float | None]:
        return {
            family: value(samples, name, ip_family=family, **labels)
            for family in FAMILIES
        }

    ones = [sample for sample in samples if sample.value == 1]
    enabled = "bigtcp_cilium_big_tcp_enabled"
    return {
        "states": {
            sample.labels["ip_family"]: sample.labels["state"]
            for sample in ones
            if sample.name == "bigtcp_verdict"
        },
        "findings": {
            sample.labels["id"] for sample in ones if sample.name == "bigtcp_finding"
        },
        "configured": of(enabled, source="configmap"),
        "enabled": of(enabled, source="agent"),
        "applied": of("bigtcp_cilium_max_size_bytes", offload="gso"),
        "legacy": of("bigtcp_pods", state="legacy"),
        "big": of("bigtcp_pods", state="big"),
    }


def said_by_picture(answer: dict[str, Any]) -> Said:
    """Of `check -o json` or /api/snapshot."""
    families = answer["families"]
    limits = {
        name: [pod["limits"][name] for pod in answer["pods"]] for name in FAMILIES
    }
    return {
        "states": {name: families[name]["state"] for name in FAMILIES},
        "findings": {each["id"] for each in answer["findings"]},
        "configured": {name: families[name]["configured"] for name in FAMILIES},
        "enabled": {name: families[name]["enabled"] for name in FAMILIES},
        "applied": {
            name: answer["cilium"]["big_tcp"][name]["max_gso"] for name in FAMILIES
        },
        "legacy": {
            name: sum(limit <= LEGACY for limit in limits[name]) for name in FAMILIES
        },
        "big": {
            name: sum(limit > LEGACY for limit in limits[name]) for name in FAMILIES
        },
    }


def assert_all_tell_the_same(node: Node) -> None:
    """/metrics, `check` and /api/snapshot, while nothing changes: what happened
    lately may end to be so between two of them.
    """

    def steady() -> tuple[Said, ...] | None:
        before = said_by_metrics(scraped(node))
        _, checked = told(node)
        _, text = node.call(lambda: fetch(f"{URL}/api/snapshot"))
        if said_by_metrics(scraped(node)) != before:
            return None
        return before, said_by_picture(checked), said_by_picture(json.loads(text))

    metrics, checked, served = wait_until(steady, "a moment without change") or ()
    assert metrics == checked == served


def pod_of(cluster: Cluster, node: Node) -> str:
    names = cluster.kubectl(
        "get", "pods", f"--field-selector=spec.nodeName={node.name}", "--output=name"
    )
    (name,) = names.split()
    return f"default/{name.removeprefix('pod/')}"


def pod_bytes(cluster: Cluster, node: Node, family: str) -> dict[str, float]:
    """Bytes that the pod of a node has sent (tx) and received (rx)."""
    namespace, _, pod = pod_of(cluster, node).partition("/")
    at = {"namespace": namespace, "pod": pod, "ip_family": family}
    samples, name = scraped(node), "bigtcp_pod_skb_length_bytes_sum"
    found = {
        direction: value(samples, name, direction=direction, **at)
        for direction in ("tx", "rx")
    }
    return {key: its for key, its in found.items() if its is not None}


def assert_pods_agree_with_netperf(cluster: Cluster, family: str) -> None:
    """Client and server, both directions, within 2 % of what netperf counts."""

    def counted() -> bool:  # Cilium's endpoints are read every few seconds
        cluster.netperf(family)
        return all(len(pod_bytes(cluster, node, family)) == 2 for node in cluster.nodes)

    wait_until(counted, f"the pods' {family}")
    before = [pod_bytes(cluster, node, family) for node in cluster.nodes]
    result = cluster.netperf(family, 2)
    transactions = result.transactions_per_second * result.elapsed_seconds
    for node, old in zip(cluster.nodes, before, strict=True):
        now = pod_bytes(cluster, node, family)
        for direction in ("tx", "rx"):
            counted_bytes = now[direction] - old[direction]
            assert counted_bytes == pytest.approx(80_000 * transactions, rel=0.02)


# Exit code, states of both families, ids of the findings.
EXPECTED: dict[str, tuple[int, list[str], list[str]]] = {
    "off": (0, ["disabled", "disabled"], []),
    "enabled": (5, ["partial", "partial"], ["C06"]),
    "cut": (5, ["segmented", "segmented"], ["C09", "C09"]),
    "on": (0, ["active", "active"], []),
    "legacy": (5, ["active", "dropped"], ["C05", "C13"]),
}


@pytest.mark.parametrize("stage", stages.STAGES)
def test_stage(cluster: Cluster, stage: str) -> None:
    stages.STAGES[stage](cluster)
    code, states, findings = EXPECTED[stage]
    for node, (its_code, answer) in zip(
        cluster.nodes, under_load(cluster), strict=True
    ):
        assert [answer["families"][name]["state"] for name in FAMILIES] == states
        assert [each["id"] for each in answer["findings"]] == findings
        assert its_code == code
        assert answer["cilium"]["version"] == "1.20.2"
        assert all(
            source["up"] or name == "nodeconfigs"
            for name, source in answer["sources"].items()
        )
        subjects = [each["subjects"] for each in answer["findings"]]
        if stage == "enabled":
            assert subjects == [[pod_of(cluster, node)]]
        if stage == "cut":  # the ports of the bridge, which stands on the host
            where = f"(netns {cluster.host.inode})"
            assert subjects == [[f"node1 {where}"], [f"node2 {where}"]]
            assert all(
                each["families"] == ["ipv4", "ipv6"] for each in answer["findings"]
            )
        if stage == "legacy":
            lacks = answer["findings"][0]
            assert "host routing is Legacy" in lacks["seen"]
            assert "masquerading is by iptables" in lacks["seen"]
            assert "set bpf.masquerade=true" in lacks["remedy"]
    for node in cluster.nodes:
        assert_all_tell_the_same(node)
    if stage in ("off", "on"):
        assert_pods_agree_with_netperf(cluster, "ipv6")
    if stage in ("off", "on", "legacy"):
        assert_pods_agree_with_netperf(cluster, "ipv4")


def test_a_change_of_the_configmap_is_seen_within_two_seconds(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    changed = "bigtcp_cilium_config_changed_timestamp_seconds"

    def says(enabled: float) -> bool:
        name, at = "bigtcp_cilium_big_tcp_enabled", {"source": "configmap"}
        return value(scraped(node), name, ip_family="ipv4", **at) == enabled

    assert says(1)
    took = []
    for word, enabled in 2 * (("false", 0), ("true", 1)):
        before = time.time()
        cluster.configure_cilium(enable_ipv4_big_tcp=word)
        begun = time.monotonic()
        wait_until(partial(says, enabled), "the change in /metrics")
        took.append(time.monotonic() - begun)
        assert before <= (value(scraped(node), changed) or 0) <= time.time()
        if word == "false":
            _, answer = told(node, "--seconds=1")
            assert "C12" in [each["id"] for each in answer["findings"]]
    assert sum(seconds > 2 for seconds in took) <= 1, took  # it may stop for a moment


def test_budgets_hold_with_kubernetes_on(
    cluster: Cluster, agents: list[subprocess.Popen[str]]
) -> None:
    """100 MiB, 1,500 series, and what a scrape takes, with its way there."""
    for node, process in zip(cluster.nodes, agents, strict=True):
        status = Path(f"/proc/{process.pid}/status").read_text()
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        times = []
        for _ in range(9):
            begun = time.monotonic()
            node.call(lambda: fetch(f"{URL}/metrics"))
            times.append(1000 * (time.monotonic() - begun))
        took, samples = sorted(times)[2], scraped(node)  # beside whatever else runs
        print(
            f"{node.name}: RSS {int(resident) / 1024:.0f} MiB, {len(samples)} series, "
            f"{took:.0f} ms a scrape"
        )
        assert value(samples, "bigtcp_source_up", source="configmap") == 1
        assert int(resident) <= 100 * 1024
        assert len(samples) <= 1500
        assert took <= 100


def test_single_pods_under_legacy_routing(cluster: Cluster) -> None:
    """Both families: without BIG TCP IPv6 does not crawl through it."""
    stages.off(cluster)
    stages.legacy(cluster)
    for family in FAMILIES:
        assert_pods_agree_with_netperf(cluster, family)
