# SPDX-License-Identifier: Apache-2.0
"""The five stages that a user walks through, told right on both nodes."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent.lab.netns import Namespace, wait_until
from tests.cluster import stages
from tests.cluster.cluster import STATE, Cluster
from tests.cluster.nodes import Node
from tests.process import fetch

URL = "http://127.0.0.1:19715"
AGENT = (sys.executable, "-P", "-m", "agent")
FAMILIES = ("ipv4", "ipv6")


@contextlib.contextmanager
def running_agent(node: Node) -> Iterator[None]:
    """An agent on a node, as the DaemonSet's would be: its network is the node's."""
    flags = (
        *("--listen", "127.0.0.1:19715"),
        *("--cilium-socket", f"{node.root}/run/cilium/cilium.sock"),
        *("--node-name", node.name, "--kubeconfig", str(STATE / "kubeconfig")),
        *("--max-pods", "16"),
    )
    process = subprocess.Popen(
        Namespace.command(node, *AGENT, "run", *flags),
        stderr=subprocess.PIPE,
        text=True,
    )

    def ready() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return node.call(lambda: fetch(f"{URL}/readyz"))[0] == 200

    try:
        wait_until(ready, f"the agent of {node.name}", 30)
        yield
    finally:
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def walked(cluster: Cluster) -> Iterator[Cluster]:
    with contextlib.ExitStack() as stack:
        for node in cluster.nodes:
            stack.enter_context(running_agent(node))
        yield cluster


def told(node: Node, seconds: int) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `check` on a node that watches for so long."""
    argv = Namespace.command(node, *AGENT, "check", "-o", "json")
    done = subprocess.run(
        [*argv, f"--seconds={seconds}"], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


def under_load(cluster: Cluster) -> list[tuple[int, dict[str, Any]]]:
    """What each node tells while netperf runs for a second in each family."""
    with ThreadPoolExecutor(len(cluster.nodes)) as pool:
        answers = [pool.submit(told, node, 5) for node in cluster.nodes]
        for family in FAMILIES:
            cluster.netperf(family)
        return [answer.result() for answer in answers]


def told_by_metrics(node: Node) -> tuple[set[str], set[str]]:
    """States (family:state) and ids of findings that /metrics has at 1."""
    status, text = node.call(lambda: fetch(f"{URL}/metrics"))
    assert status == 200
    lines = [line for line in text.splitlines() if line.endswith(" 1.0")]
    states = {
        line.split('ip_family="')[1].split('"')[0]
        + ":"
        + line.split('state="')[1].split('"')[0]
        for line in lines
        if line.startswith("bigtcp_verdict{")
    }
    found = {line.split('"')[1] for line in lines if line.startswith("bigtcp_finding{")}
    return states, found


def pod_of(cluster: Cluster, node: Node) -> str:
    names = cluster.kubectl(
        "get", "pods", f"--field-selector=spec.nodeName={node.name}", "--output=name"
    )
    (name,) = names.split()
    return f"default/{name.removeprefix('pod/')}"


def pod_bytes(cluster: Cluster, node: Node, family: str) -> dict[str, float]:
    """Bytes that the pod of a node has sent (tx) and received (rx)."""
    _, text = node.call(lambda: fetch(f"{URL}/metrics"))
    pod = pod_of(cluster, node).removeprefix("default/")
    found = {}
    for direction in ("tx", "rx"):
        labels = f'direction="{direction}",ip_family="{family}"'
        where = f'namespace="default",pod="{pod}"'
        series = f"bigtcp_pod_skb_length_bytes_sum{{{labels},{where}}} "
        for line in text.splitlines():
            if line.startswith(series):
                found[direction] = float(line.removeprefix(series))
    return found


def assert_pods_agree_with_netperf(cluster: Cluster, family: str) -> None:
    """Client and server, both directions, within 2 % of what netperf counts."""

    def counted() -> bool:  # Cilium's endpoints are read every few seconds
        cluster.netperf(family)
        return all(len(pod_bytes(cluster, node, family)) == 2 for node in cluster.nodes)

    wait_until(counted, f"the pods' {family}", 15)
    before = [pod_bytes(cluster, node, family) for node in cluster.nodes]
    result = cluster.netperf(family, 2)
    expected = result.transactions_per_second * 2 * 80_000
    for node, old in zip(cluster.nodes, before, strict=True):
        now = pod_bytes(cluster, node, family)
        for direction in ("tx", "rx"):
            assert now[direction] - old[direction] == pytest.approx(expected, rel=0.02)


# Exit code, states of both families, ids of the findings.
EXPECTED: dict[str, tuple[int, list[str], list[str]]] = {
    "off": (0, ["disabled", "disabled"], []),
    "enabled": (5, ["partial", "partial"], ["C06"]),
    "cut": (5, ["segmented", "segmented"], ["C09", "C09"]),
    "on": (0, ["active", "active"], []),
    "legacy": (5, ["active", "dropped"], ["C05", "C13"]),
}


@pytest.mark.parametrize("stage", stages.STAGES)
def test_stage(walked: Cluster, stage: str) -> None:
    stages.STAGES[stage](walked)
    code, states, findings = EXPECTED[stage]
    for node, (its_code, answer) in zip(walked.nodes, under_load(walked), strict=True):
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
            assert subjects == [[pod_of(walked, node)]]
        if stage == "cut":  # the ports of the bridge, which stands on the host
            where = f"(netns {walked.host.inode})"
            assert subjects == [[f"node1 {where}"], [f"node2 {where}"]]
            assert all(
                each["families"] == ["ipv4", "ipv6"] for each in answer["findings"]
            )
        if stage == "legacy":
            lacks = answer["findings"][0]
            assert "host routing is Legacy" in lacks["seen"]
            assert "masquerading is by iptables" in lacks["seen"]
            assert "set bpf.masquerade=true" in lacks["remedy"]
    if stage in ("off", "on"):
        assert_pods_agree_with_netperf(walked, "ipv6")
    if stage in ("off", "on", "legacy"):
        assert_pods_agree_with_netperf(walked, "ipv4")


def test_a_change_of_the_configmap_is_seen_within_two_seconds(walked: Cluster) -> None:
    node = walked.nodes[0]
    metric = 'bigtcp_cilium_big_tcp_enabled{ip_family="ipv4",source="configmap"}'

    def says(value: str) -> bool:
        return f"{metric} {value}\n" in node.call(lambda: fetch(f"{URL}/metrics"))[1]

    assert says("1.0")
    walked.configure_cilium(enable_ipv4_big_tcp="false")
    wait_until(lambda: says("0.0"), "the change in /metrics", 2)
    _, answer = told(node, 1)
    assert "C12" in [each["id"] for each in answer["findings"]]
    walked.configure_cilium(enable_ipv4_big_tcp="true")
    wait_until(lambda: says("1.0"), "the change in /metrics", 2)


def test_metrics_and_check_tell_the_same(walked: Cluster) -> None:
    for node in walked.nodes:
        status, text = node.call(lambda: fetch(f"{URL}/api/snapshot"))
        assert status == 200
        answer = json.loads(text)
        states, found = told_by_metrics(node)
        assert states == {
            f"{name}:{answer['families'][name]['state']}" for name in FAMILIES
        }
        assert found == {each["id"] for each in answer["findings"]}
