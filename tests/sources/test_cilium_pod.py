# SPDX-License-Identifier: Apache-2.0
"""The pod of Cilium's agent, as the API server lists it."""

import threading
from dataclasses import replace
from typing import Any

import pytest

from agent.cluster.api import Json
from agent.cluster.watch import Watch
from agent.snapshot.cilium import CiliumPod
from tests.snapshot.fakes import CRASHED
from tests.sources.fakes import HOUR, FakeApi, cluster_of

PODS = "/api/v1/namespaces/kube-system/pods"
ENDED = {
    "exitCode": 1,
    "reason": "Error",
    "message": "level=error msg=no",
    "finishedAt": "2026-11-30T04:01:00Z",
}


def pod(*containers: Json, init: tuple[Json, ...] = ()) -> Json:
    return {
        "metadata": {"namespace": "kube-system", "name": "cilium-x7k2p"},
        "status": {
            "initContainerStatuses": list(init),
            "containerStatuses": list(containers),
        },
    }


def container(name: str = "cilium-agent", **fields: Any) -> Json:
    return {"name": name, "restartCount": 0, "state": {"running": {}}, **fields}


def followed(api: FakeApi) -> Watch[CiliumPod]:
    """The source after an hour."""
    cluster = cluster_of(api, "node1", cilium_pods=True)
    reachable = threading.Event()
    reachable.set()
    watch = Watch(
        api,
        cluster._cilium_pods(),
        lambda: None,
        reachable=reachable,
        clock=cluster._clock,
        scout=False,
    )
    watch.run()
    return watch


def found(item: Json) -> CiliumPod:
    api = FakeApi()
    api.objects[PODS] = [item]
    watch = followed(api)
    assert watch.objects is not None, watch.problem
    (told,) = watch.objects.values()
    return told


def test_one_that_crashes_again_and_again() -> None:
    agent = container(
        restartCount=12,
        state={"waiting": {"reason": "CrashLoopBackOff"}},
        lastState={"terminated": ENDED},
    )
    assert found(pod(container("other"), agent)) == replace(
        CRASHED, message="level=error msg=no", finished=1796011260.0
    )


def test_one_that_has_just_ended() -> None:
    told = found(pod(container(state={"terminated": ENDED})))
    assert (told.exit_code, told.waiting) == (1, "")


def test_one_that_runs_and_ended_before() -> None:
    told = found(pod(container(restartCount=1, lastState={"terminated": ENDED})))
    assert (told.exit_code, told.waiting, told.restarts) == (1, "", 1)


def test_one_that_never_ended() -> None:
    told = found(pod(container()))
    assert (told.exit_code, told.reason, told.message) == (None, "", "")
    assert told.logs_command == (
        "kubectl logs -n kube-system cilium-x7k2p -c cilium-agent"
    )
    assert told.finished is None


def test_the_container_that_prepares_it_fails() -> None:
    ended = {"terminated": ENDED | {"exitCode": 3}}
    config = container("config", state=ended, restartCount=2)
    done = container("mount", state={"terminated": {"exitCode": 0}})
    waits = container(state={"waiting": {"reason": "PodInitializing"}})
    told = found(pod(waits, init=(done, config)))
    assert (told.exit_code, told.container) == (3, "config")
    assert told.logs_command == (
        "kubectl logs -n kube-system cilium-x7k2p -c config --previous"
    )


def test_a_pod_without_any_status() -> None:
    told = found({"metadata": {"namespace": "kube-system", "name": "new"}})
    assert (told.name, told.exit_code, told.waiting) == ("new", None, "Pending")


def test_a_pod_that_was_evicted_is_not_the_agent() -> None:
    api = FakeApi()
    evicted = pod(container(state={"terminated": ENDED}))
    evicted["status"] |= {"phase": "Failed", "reason": "Evicted"}
    api.objects[PODS] = [evicted]
    watch = followed(api)
    assert watch.source.up
    assert watch.objects == {}


def test_a_container_before_it_waits_for_its_image() -> None:
    config = container("config", state={"waiting": {"reason": "ImagePullBackOff"}})
    waits = container(state={"waiting": {"reason": "PodInitializing"}})
    told = found(pod(waits, init=(config,)))
    assert (told.container, told.waiting) == ("config", "ImagePullBackOff")


@pytest.mark.parametrize(
    "status",
    [
        {"restartCount": "many"},
        {"state": "gone"},
        {"lastState": {"terminated": {"exitCode": "x"}}},
        {"lastState": {"terminated": {"exitCode": float("inf")}}},
    ],
    ids=str,
)
def test_a_pod_that_makes_no_sense(status: Json) -> None:
    api = FakeApi()
    api.objects[PODS] = [pod(container(**status))]
    watch = followed(api)
    assert not watch.source.up
    assert "sends no list of objects" in watch.problem


def test_it_is_listed_by_node_and_never_watched() -> None:
    """Its Role has no `watch`."""
    api = FakeApi()
    api.objects[PODS] = [pod(container())]
    queries = []

    def get(path: str, query: Any, seconds: float) -> Json:
        queries.append((path, dict(query)))
        return FakeApi.get(api, path, query, seconds)

    api.get = get  # type: ignore[method-assign]
    assert followed(api).source.up
    selectors = {
        "labelSelector": "k8s-app=cilium",
        "fieldSelector": "spec.nodeName=node1",
        "resourceVersion": "0",
    }
    assert 90 < len(queries) <= HOUR / 30
    assert all(asked == (PODS, selectors) for asked in queries)
    assert not api.watches


def test_without_the_flag_it_is_not_asked() -> None:
    assert "cilium_pods" not in cluster_of(FakeApi(), "node1").state().sources
    asked = cluster_of(FakeApi(), "node1", cilium_pods=True).state()
    assert asked.sources["cilium_pods"].up is False
    assert asked.cilium_pods is None
