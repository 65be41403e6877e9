# SPDX-License-Identifier: Apache-2.0
"""The ConfigMap is followed, whatever the API server does; time is the test's."""

import itertools
import threading
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.cluster.api import Json
from agent.cluster.wanted import Cluster
from agent.cluster.watch import Clock, Resource, Watch, retry_seconds
from agent.lab.netns import wait_until
from tests.sources.fakes import (
    CONFIG_MAPS,
    HOUR,
    FakeApi,
    Step,
    cluster_of,
    config_map,
    event,
)


def test_an_hour_without_the_api_server() -> None:
    """One line when it goes and one when it is back, a knock each 30 s at most,
    and the last state with the time when it was true."""
    api = FakeApi()
    api.objects[CONFIG_MAPS] = [config_map(enable_ipv4_big_tcp="true")]
    cluster = cluster_of(api)
    away = [0.0, 0.0]

    def goes() -> Json | None:
        away[:] = [api.now, api.now + HOUR]
        api.down = OSError("no API server at https://10.0.0.1: timed out")
        raise api.down

    def sleep(seconds: float) -> bool:
        api.sleep(seconds)
        if api.down and away[1] and api.now >= away[1]:
            api.down = None
            state = cluster.state()
            assert state.wanted
            assert state.wanted.flag("enable-ipv4-big-tcp")
            assert state.wanted.seen == 1e9 + away[0]
            assert state.sources["configmap"].answered == 1e9 + away[0]
            assert state.wanted.changed is None
            assert not state.sources["configmap"].up
            assert "timed out" in state.problems["configmap"]
        return api.now >= 2 * HOUR

    api.steps = [goes]
    cluster._clock = Clock(sleep, cluster._clock.monotonic, cluster._clock.wall)
    with capture_logs() as logs:
        cluster.run()
    knocks = [at for at, _ in api.lists if away[0] < at < away[1]]
    assert 100 < len(knocks) <= 8 + HOUR / 30
    gaps = [after - before for before, after in itertools.pairwise(knocks)]
    assert knocks[0] - away[0] < 1
    assert min(gaps[7:]) >= 30
    assert [line["event"] for line in logs] == ["source failed", "source is back"]
    state = cluster.state()
    assert state.sources["configmap"].up
    assert state.sources["configmap"].errors == len(knocks) + 1
    assert state.wanted
    assert state.wanted.seen > 1e9 + away[1]


@pytest.mark.parametrize("how", ["at once", "expired", "nonsense", "refused"])
def test_a_server_that_ends_each_watch_is_not_chased(how: str) -> None:
    api = FakeApi()
    status = {"code": 410, "message": "too old resource version"}
    ends: dict[str, Step] = {
        "at once": lambda: None,
        "expired": event("ERROR", status),
        "nonsense": lambda: {"type": []},
        "refused": event("ERROR", {"code": 500, "message": "etcd is away"}),
    }

    class Endless(list[Step]):
        def __bool__(self) -> bool:
            return True

        def pop(self, _: Any = 0) -> Step:
            return ends[how]

    api.steps = Endless()
    cluster = cluster_of(api)
    cluster.run()
    assert len(api.watches) <= 8 + HOUR / 30
    assert cluster.state().sources["configmap"].up is (how in ("at once", "expired"))


def test_a_quiet_watch_is_resumed_where_it_was() -> None:
    api = FakeApi()
    bookmark = {"metadata": {"resourceVersion": "77"}}
    api.steps = [event("BOOKMARK", bookmark), lambda: _pass(api, 250)]
    cluster_of(api).run()
    assert len(api.lists) == 1
    assert api.watches[0]["resourceVersion"] == "5"
    assert {query["resourceVersion"] for query in api.watches[1:]} == {"77"}
    assert all(query["allowWatchBookmarks"] == "true" for query in api.watches)
    seconds = {int(query["timeoutSeconds"]) for query in api.watches}
    assert min(seconds) >= 240
    assert max(seconds) <= 300
    assert len(seconds) > 1


def _pass(api: FakeApi, seconds: float) -> None:
    api.now += seconds


def test_an_expired_version_is_listed_anew() -> None:
    api = FakeApi()
    gone = {"code": 410, "message": "too old"}
    api.steps = [lambda: _pass(api, 250), event("ERROR", gone)]
    cluster = cluster_of(api)
    cluster.run()
    assert len(api.lists) == 2
    assert cluster.state().sources["configmap"].errors == 0


def test_changes_have_a_time() -> None:
    api = FakeApi()
    seen = []
    cluster = cluster_of(api)

    def at(seconds: float, kind: str, **data: str) -> Step:
        def step() -> Json:
            state = cluster.state().wanted
            assert state
            seen.append((state.found, dict(state.values), state.changed))
            api.now = seconds
            return {"type": kind, "object": config_map(**data)}  # type: ignore[arg-type]

        return step

    api.steps = [
        at(10, "MODIFIED", debug="true"),
        at(20, "MODIFIED", enable_ipv4_big_tcp="true"),
        at(30, "DELETED", enable_ipv4_big_tcp="true"),
        at(40, "ADDED", enable_ipv4_big_tcp="true"),
        at(50, "MODIFIED", enable_ipv4_big_tcp="true"),
    ]
    cluster.run()
    on = {"enable-ipv4-big-tcp": "true"}
    assert seen == [
        (True, {}, None),
        (True, {}, None),
        (True, on, 1e9 + 20),
        (False, {}, 1e9 + 30),
        (True, on, 1e9 + 40),
    ]


def test_forbidden_is_a_failure_with_a_reason() -> None:
    api = FakeApi()
    api.refused[CONFIG_MAPS] = 403
    cluster = cluster_of(api)
    with capture_logs() as logs:
        cluster.run()
    state = cluster.state()
    assert state.wanted is None
    assert not state.sources["configmap"].up
    assert state.problems["configmap"] == "the API server refuses (403): no reason"
    assert len(logs) == 1


@pytest.mark.parametrize("answer", [{}, {"items": []}, {"items": 7, "metadata": {}}])
def test_a_list_that_is_none(answer: Json) -> None:
    api = FakeApi()
    api.others[CONFIG_MAPS] = answer
    cluster = cluster_of(api)
    cluster.run()
    assert "sends no list of objects" in cluster.state().problems["configmap"]


def test_no_api_server_is_absent() -> None:
    cluster = Cluster(lambda: None, "n1")
    cluster.run()
    state = cluster.state()
    assert state.wanted is None
    assert not any(source.up or source.errors for source in state.sources.values())
    assert "no kubeconfig" in state.problems["configmap"]


def test_an_unusable_kubeconfig_has_failed() -> None:
    def connect() -> None:
        raise OSError("config: not a kubeconfig file")

    cluster = Cluster(connect, "n1")
    cluster.run()
    assert cluster.state().sources["configmap"].errors == 1
    assert cluster.state().problems["configmap"] == "config: not a kubeconfig file"


def waiting(api: FakeApi, reachable: threading.Event) -> Watch[Json]:
    """A watch that is not the scout."""
    resource: Resource[Json] = Resource("x", ("/x",), {}, lambda item: item)
    return Watch(
        api,
        resource,
        lambda: None,
        reachable=reachable,
        clock=Clock(api.sleep, lambda: api.now),
        scout=False,
    )


def test_only_the_scout_knocks_at_a_server_that_is_away() -> None:
    api = FakeApi()
    api.objects = {"/x": []}
    reachable = threading.Event()
    watch = waiting(api, reachable)
    thread = threading.Thread(target=watch.run)
    thread.start()
    assert watch.objects is None
    assert api.lists == []
    reachable.set()
    wait_until(lambda: watch.objects == {}, "the list")
    thread.join()


def test_who_waits_for_the_server_asks_nothing_at_the_end() -> None:
    api = FakeApi()
    api.end = 0
    reachable = threading.Event()
    reachable.set()
    waiting(api, reachable).run()
    assert api.lists == []


def test_retries_are_quick_first_and_slow_at_last() -> None:
    waits = [retry_seconds(failures, 0) for failures in range(1, 12)]
    assert waits[:8] == [0.25, 0.5, 1, 2, 4, 8, 16, 30]
    assert set(waits[8:]) == {30}
    assert retry_seconds(1_000_000, 1) == 37.5
