# SPDX-License-Identifier: Apache-2.0
"""The cluster is what it says: what later tests rest on."""

import contextlib
import json
import subprocess
from functools import partial
from typing import Any

import pytest

from agent.errors import AgentError, Exit
from agent.kernel.links import Rtnetlink
from agent.lab.netns import Namespace, wait_until
from agent.snapshot.model import Link
from tests.cilium.record import DROPPED
from tests.cluster import stages
from tests.cluster.cluster import BIG, LEGACY, STATE, Cluster
from tests.cluster.nodes import Node
from tests.process import COMMAND
from tests.sources.agent import URLS, fields, fields_of, pod_name

FAMILIES = ("ipv4", "ipv6")


def links(namespace: Namespace) -> dict[str, Link]:
    def inside() -> list[Link]:
        with contextlib.closing(Rtnetlink()) as rtnetlink:
            return rtnetlink.links()

    return {link.name: link for link in namespace.call(inside)}


def sizes(link: Link) -> set[int | None]:
    """All four of them, of which the tests here set none alone."""
    found = link.sizes
    return {found.gso_max, found.gro_max, found.gso_ipv4_max, found.gro_ipv4_max}


def pod_devices(node: Node) -> dict[str, Link]:
    """Host sides of a node's pods."""
    return {name: link for name, link in links(node).items() if name[:3] == "lxc"}


def speed(cluster: Cluster, family: str) -> float:
    """What else the machine does only slows: the best of three."""
    return max(cluster.netperf(family).transactions_per_second for _ in range(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_pods_of_different_nodes_reach_each_other(
    cluster: Cluster, family: str
) -> None:
    """TCP_RR of 80,000 bytes, the lab's test."""
    assert speed(cluster, family) > 1000
    where = cluster.kubectl("get", "pods", "--output=jsonpath={..spec.nodeName}")
    assert sorted(where.split()) == ["node1", "node2"]


def test_cilium_answers_as_cilium(cluster: Cluster) -> None:
    for node in cluster.nodes:
        health, config = node.cilium("healthz"), node.cilium("config")["status"]
        assert health["cilium"]["state"] == "Ok"
        assert health["kube-proxy-replacement"]["mode"] == "True"
        assert health["kube-proxy-replacement"]["devices"] == ["eth0"]
        assert health["masquerading"]["mode"] == "BPF"
        assert health["routing"]["intra-host-routing-mode"] == "BPF"
        assert health["ipv4-big-tcp"] == {"maxGRO": LEGACY, "maxGSO": LEGACY}
        assert config["GSOMaxSize"] == config["GROIPv4MaxSize"] == LEGACY
        assert config["daemonConfigurationMap"]["EnableIPv4"] is True
        runtime = node.root / "run/cilium/state/agent-runtime-config.json"
        assert json.loads(runtime.read_text())["EnableBPFMasquerade"] is True


def test_an_endpoint_is_a_pod_and_its_device(cluster: Cluster) -> None:
    for node, app in zip(
        cluster.nodes, ("netperf-client", "netperf-server"), strict=True
    ):
        (endpoint,) = node.cilium("endpoint")
        network = endpoint["status"]["networking"]
        assert pod_name(endpoint).startswith(f"default/{app}-")
        device = pod_devices(node)[network["interface-name"]]
        assert device.ifindex == network["interface-index"]
        assert device.mac == network["host-mac"]
        (addresses,) = network["addressing"]
        assert {family: addresses[family] for family in FAMILIES} == (
            cluster.pod_addresses(app)
        )


def test_the_stand_in_answers_what_the_real_agent_answers(cluster: Cluster) -> None:
    """Not every field, but none that Cilium's own agent does not have."""
    left_out = {".".join(path.split()) for path in DROPPED}  # of the recordings
    known = fields_of("1.20.2") | left_out
    for node in cluster.nodes:
        for url in URLS:
            answer = node.cilium(url.removeprefix("/v1/"))
            assert fields(answer, url) - known == set(), url


def test_a_restart_of_cilium_keeps_the_pods(cluster: Cluster) -> None:
    before = [node.cilium("endpoint") for node in cluster.nodes]
    cluster.restart_cilium()
    assert [node.cilium("endpoint") for node in cluster.nodes] == before
    for family in FAMILIES:
        assert speed(cluster, family) > 1000


def checked(node: Node) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `check` on a node, with probes of its own."""
    flags = (
        *("--cilium-socket", f"{node.root}/run/cilium/cilium.sock"),
        *("--node-name", node.name, "--kubeconfig", str(STATE / "kubeconfig")),
    )
    done = subprocess.run(
        Namespace.command(node, COMMAND, "check", "--output=json", *flags),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_legacy_host_routing_on_purpose_is_refused(cluster: Cluster) -> None:
    """Cilium does not start with it and BIG TCP; `check` tells so without it."""
    in_cilium = ("--namespace=kube-system", "--selector=k8s-app=cilium")

    def refused() -> bool:
        try:
            said = cluster.kubectl("logs", *in_cilium, "--prefix")
        except AgentError:  # a container that is just being made has none
            return False
        lines = [line for line in said.splitlines() if "legacy host routing" in line]
        pods = {line.split("]")[0] for line in lines if "BIG TCP is not" in line}
        return len(pods) == len(cluster.nodes)

    try:
        cluster.configure_cilium(
            enable_ipv4_big_tcp="true", enable_host_legacy_routing="true"
        )
        cluster.kubectl("delete", "pods", *in_cilium)
        wait_until(refused, "Cilium to refuse")

        def asked(node: Node) -> tuple[int, dict[str, Any]] | None:
            """With the ConfigMap, which comes while the probes count."""
            code, answer = checked(node)
            return (code, answer) if answer["sources"]["configmap"]["up"] else None

        for node in cluster.nodes:
            found = wait_until(partial(asked, node), "the ConfigMap")
            assert found
            code, answer = found
            assert answer["families"]["ipv4"]["state"] == "refused"
            assert answer["families"]["ipv6"]["state"] == "disabled"
            told = [x for x in answer["findings"] if x["severity"] != "info"]
            assert any("ipv4" in each["families"] for each in told)
            assert code == Exit.FINDINGS
    finally:
        cluster.configure_cilium(
            enable_ipv4_big_tcp="false", enable_host_legacy_routing="false"
        )
        cluster.restart_cilium()


def test_the_five_stages(cluster: Cluster) -> None:
    """Every device has the sizes that it has with Cilium, at every stage."""

    def seen() -> tuple[set[int | None], ...]:
        uplinks = [sizes(links(node)["eth0"]) for node in cluster.nodes]
        pods = [sizes(x) for node in cluster.nodes for x in pod_devices(node).values()]
        ports = [sizes(links(cluster.host)[node.name]) for node in cluster.nodes]
        assert len(pods) == 2
        return set().union(*uplinks), set().union(*pods), set().union(*ports)

    stages.off(cluster)
    assert seen() == ({LEGACY}, {LEGACY}, {LEGACY})
    plain = {family: speed(cluster, family) for family in FAMILIES}

    stages.enabled(cluster)
    assert seen() == ({BIG}, {LEGACY}, {LEGACY})
    for node in cluster.nodes:
        health = node.cilium("healthz")
        for family in FAMILIES:
            assert health[f"{family}-big-tcp"] == {
                "enabled": True,
                "maxGRO": BIG,
                "maxGSO": BIG,
            }

    stages.cut(cluster)
    assert seen() == ({BIG}, {BIG}, {LEGACY})
    slow = {family: speed(cluster, family) for family in FAMILIES}
    for family in FAMILIES:
        assert slow[family] < 0.7 * plain[family]

    stages.on(cluster)
    assert seen() == ({BIG}, {BIG}, {BIG})
    big = {family: speed(cluster, family) for family in FAMILIES}
    for family in FAMILIES:
        assert big[family] > 1.5 * slow[family]

    stages.legacy(cluster)
    assert seen() == ({BIG}, {BIG}, {BIG})
    for node in cluster.nodes:
        health = node.cilium("healthz")
        assert health["routing"]["intra-host-routing-mode"] == "Legacy"
        assert health["masquerading"]["mode"] == "iptables"
    assert speed(cluster, "ipv6") < 0.1 * big["ipv6"]

    stages.off(cluster)
    assert seen() == ({LEGACY}, {LEGACY}, {LEGACY})
