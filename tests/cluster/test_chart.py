# SPDX-License-Identifier: Apache-2.0
"""The chart's life on the cluster, in the hands of each Helm: installed, asked,
killed, changed, taken back, removed, and nothing stays.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent.lab.netns import wait_until
from tests.chart import helm
from tests.cluster import release as releases
from tests.cluster.cluster import Cluster
from tests.cluster.release import HOOKS, NAME, NAMESPACE, Release
from tests.process import bpf_programs, fetch

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"
BPF_AND_PERFMON = 1 << 39 | 1 << 38  # include/uapi/linux/capability.h


@pytest.fixture(scope="module", params=helm.VERSIONS)
def release(request: pytest.FixtureRequest, stocked: Cluster) -> Iterator[Release]:
    """One for all tests here, one after the other."""
    with releases.installed(stocked, request.param) as made:
        yield made


def test_ready_on_both_nodes_with_two_capabilities(release: Release) -> None:
    assert set(release.pods()) == {node.name for node in release.cluster.nodes}
    for node in release.cluster.nodes:
        pid = releases.process_on(release, node.name)
        status = releases.status(pid)
        for kind in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status[kind], 16) == BPF_AND_PERFMON
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"  # a filter
        with open(f"/proc/{pid}/mounts") as file:
            mounts = {line.split()[1]: line.split()[3] for line in file}
        for mount in ("/", "/var/run/cilium"):
            path = mount if mount in mounts else mount.removeprefix("/var")
            assert "ro" in mounts[path].split(",")


def test_check_in_the_pod(release: Release) -> None:
    for node in release.cluster.nodes:
        code, answer = release.check(node.name)
        assert code == 0
        states = {name: each["state"] for name, each in answer["families"].items()}
        assert states == {"ipv4": "disabled", "ipv6": "disabled"}
        assert answer["cilium"]["version"] == "1.20.2"
        up = {name for name, source in answer["sources"].items() if source["up"]}
        assert up >= {"configmap", "cilium", "cilium_runtime", "links", "probes"}
        local = "the agent at http://127.0.0.1:19715"
        assert release.who_checks(node.name) == local


def test_helm_test(release: Release) -> None:
    assert "Succeeded" in release.run("test", "--timeout=60s")


def allowed(release: Release, namespace: str, account: str) -> set[str]:
    """All that an account may do in a namespace, as the API server says."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    said = release.kubectl(
        *("create", "--filename=-", "--output=json", "--validate=false"),
        f"--as={account}",
        text=json.dumps(review),
    )
    status = json.loads(said)["status"]
    assert not status["incomplete"]
    found = set()
    for rule in status["resourceRules"]:
        for verb in rule["verbs"]:
            for resource in rule["resources"]:
                names = ",".join(rule.get("resourceNames", []))
                found.add(f"{verb} {resource} {names}".strip())
    return found | {
        f"{verb} {url}"
        for rule in status["nonResourceRules"]
        for verb in rule["verbs"]
        for url in rule["nonResourceURLs"]
    }


def rights(release: Release) -> dict[str, set[str]]:
    """What the agent may do and not every account, by namespace."""
    everybody = f"system:serviceaccount:{NAMESPACE}:default"
    return {
        namespace: allowed(release, namespace, ACCOUNT)
        - allowed(release, namespace, everybody)
        for namespace in ("kube-system", NAMESPACE, "default")
    }


READ = ("get", "list", "watch")


def test_rights(release: Release) -> None:
    everywhere = {"get nodes"}
    in_ciliums = {f"{verb} configmaps cilium-config" for verb in READ}
    in_ciliums |= {f"{verb} ciliumnodeconfigs" for verb in READ}
    assert rights(release) == {
        "kube-system": everywhere | in_ciliums,
        NAMESPACE: everywhere,
        "default": everywhere,
    }


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("get configmap/cilium-config --namespace=kube-system", True),
        ("get node/node1", True),
        ("get configmaps --namespace=kube-system", False),
        ("get configmap/kube-root-ca.crt --namespace=kube-system", False),
        ("get nodes", False),
        ("get pods --all-namespaces", False),
        ("get secrets --namespace=kube-system", False),
        ("get secrets", False),
        (
            "delete configmap/cilium-config --namespace=kube-system --dry-run=server",
            False,
        ),
        ("label node/node1 a=b --dry-run=server", False),
    ],
)
def test_requests_as_the_agent(release: Release, question: str, answer: bool) -> None:
    done = release.cluster.run_kubectl(*question.split(), f"--as={ACCOUNT}")
    assert (done.returncode == 0) is answer
    if not answer:
        assert "forbidden" in done.stderr


def ready(release: Release, node: str) -> dict[str, Any] | None:
    """Status of the container, when the pod is ready."""
    pod = release.pods().get(node)
    conditions = pod["status"].get("conditions", []) if pod else []
    if not any(x["type"] == "Ready" and x["status"] == "True" for x in conditions):
        return None
    assert pod
    (container,) = pod["status"]["containerStatuses"]
    found: dict[str, Any] = container
    return found


def metric(release: Release, node: str, series: str) -> float:
    """A value of the agent's on a node, by its series' text; 0 where there is none."""
    (place,) = (each for each in release.cluster.nodes if each.name == node)
    status, text = place.call(lambda: fetch("http://127.0.0.1:19715/metrics"))
    assert status == 200
    lines = [line for line in text.splitlines() if line.startswith(series)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_killed_under_load_it_is_back_in_five_seconds(release: Release) -> None:
    """And the programs of the one that was killed are gone, its counts begin anew."""
    counted = 'bigtcp_skb_length_bytes_count{hook="net_dev_start_xmit"'
    old = ready(release, "node1")
    assert old
    pid = releases.process_on(release, "node1")
    programs = releases.programs(pid)
    assert len(programs) == HOOKS
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(release.cluster.netperf, "ipv4", 8)
        wait_until(lambda: metric(release, "node1", counted) > 1000, "the load")
        releases.kill(pid)
        killed = time.monotonic()

        def back() -> bool:
            now = ready(release, "node1")
            return bool(now and now["restartCount"] == old["restartCount"] + 1)

        wait_until(back, "the agent to be back", 5)
        assert time.monotonic() - killed < 5
        assert load.result().transactions_per_second > 1000
    assert not programs & bpf_programs()
    assert len(releases.programs(releases.process_on(release, "node1"))) == HOOKS
    assert metric(release, "node1", counted) > 0


def test_evicted_it_comes_back(release: Release) -> None:
    pod = release.pods()["node2"]["metadata"]["name"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    release.kubectl("create", "--raw", path, "--filename=-", text=json.dumps(eviction))

    def replaced() -> bool:
        new = release.pods().get("node2")
        return bool(new and new["metadata"]["name"] != pod and ready(release, "node2"))

    wait_until(replaced, "a new pod", 15)
    wait_until(lambda: len(releases.processes()) == len(release.cluster.nodes), "one")


def test_upgrade_and_rollback(release: Release) -> None:
    """What is changed is changed in the agents that run, and taken back."""

    def told(name: str) -> set[str]:
        return {
            release.kubectl(
                *("exec", pod["metadata"]["name"], "--", "python", "-c"),
                f"import os; print(os.environ.get({name!r}))",
            ).strip()
            for pod in release.pods().values()
        }

    before = rights(release)
    assert told("BIGTCP_MAX_PODS") == {"0"}
    release.apply("upgrade", "--set=agent.maxPods=16,kubernetes.watchPods=true")
    release.cluster.rolled_out(f"--namespace={NAMESPACE}", f"daemonset/{NAME}")
    assert told("BIGTCP_MAX_PODS") == {"16"}
    watched = {"list pods", "watch pods"}
    assert rights(release) == {name: each | watched for name, each in before.items()}

    def pods_are_up() -> bool:
        answers = [release.check(node.name)[1] for node in release.cluster.nodes]
        return all(each["sources"].get("pods", {}).get("up") for each in answers)

    wait_until(pods_are_up, "the agents to see pods", 15)
    release.run("rollback", "--wait", "--timeout=90s")
    release.cluster.rolled_out(f"--namespace={NAMESPACE}", f"daemonset/{NAME}")
    assert told("BIGTCP_MAX_PODS") == {"0"}
    assert rights(release) == before
