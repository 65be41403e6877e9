# SPDX-License-Identifier: Apache-2.0
"""The chart's life on the cluster, in the hands of each Helm: installed, asked,
changed, taken back, removed, and nothing stays.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from agent.lab.netns import wait_until
from tests.chart import helm
from tests.cluster import release as releases
from tests.cluster.cluster import Cluster
from tests.cluster.release import NAME, NAMESPACE, Release

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
        assert int(status["CapBnd"], 16) == BPF_AND_PERFMON
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[kind], 16) == 0  # dropped while it started
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"  # filters: the runtime's, and its own
        assert int(status["Seccomp_filters"]) >= 2
        with open(f"/proc/{pid}/mounts") as file:
            mounts = {line.split()[1]: line.split()[3] for line in file}
        for mount in ("/", "/var/run/cilium"):
            path = mount if mount in mounts else mount.removeprefix("/var")
            assert "ro" in mounts[path].split(",")


def all_up(release: Release, node: str) -> tuple[int, dict[str, Any]] | None:
    """What `check` says when every source has answered the agent."""
    code, answer = release.check(node)
    up = {name for name, source in answer["sources"].items() if source["up"]}
    wanted = {"configmap", "cilium", "cilium_runtime", "links", "probes"}
    return (code, answer) if up >= wanted else None


def test_check_in_the_pod(release: Release) -> None:
    for node in release.cluster.nodes:
        found = wait_until(partial(all_up, release, node.name), "the sources")
        assert found
        code, answer = found
        assert code == 0
        states = {name: each["state"] for name, each in answer["families"].items()}
        assert states == {"ipv4": "disabled", "ipv6": "disabled"}
        assert answer["cilium"]["version"] == "1.20.2"
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

    wait_until(pods_are_up, "the agents to see pods")
    release.run("rollback", "--wait", "--timeout=90s")
    release.cluster.rolled_out(f"--namespace={NAMESPACE}", f"daemonset/{NAME}")
    assert told("BIGTCP_MAX_PODS") == {"0"}
    assert rights(release) == before
