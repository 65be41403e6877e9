# SPDX-License-Identifier: Apache-2.0
"""The ConfigMap is followed, whatever the API server does; time is the test's."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.cluster.api import Json, RefusedError
from agent.cluster.wanted import Cluster
from agent.cluster.watch import Clock, Resource, Watch, retry_seconds
from agent.lab.netns import wait_until
from agent.snapshot.cilium import Pod

CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
NODE_CONFIGS = "/apis/cilium.io/{}/namespaces/kube-system/ciliumnodeconfigs"
HOUR = 3600.0
Step = Callable[[], Json | None]


def config_map(version: int = 1, **data: str) -> Json:
    named = {key.replace("_", "-"): value for key, value in data.items()}
    metadata = {"name": "cilium-config", "namespace": "kube-system"}
    return {"metadata": metadata | {"resourceVersion": str(version)}, "data": named}


class FakeApi:
    """Objects by path; a watch takes `seconds`, or plays the steps that are there."""

    def __init__(self) -> None:
        self.now = 0.0
        self.end = HOUR
        self.down: OSError | None = None
        self.refused: dict[str, int] = {}
        self.objects: dict[str, list[Json]] = {CONFIG_MAPS: [config_map()]}
        self.others: dict[str, Json] = {}
        self.steps: list[Step] = []
        self.watch_seconds = 240.0
        self.lists: list[tuple[float, str]] = []
        self.watches: list[Mapping[str, str]] = []
        self.closed = threading.Event()

    def sleep(self, seconds: float) -> bool:
        self.now += seconds
        return self.now >= self.end

    def get(self, path: str, query: Mapping[str, str], seconds: float) -> Json:
        assert seconds
        self.lists.append((self.now, path))
        self._fail(path)
        if path in self.others:
            return self.others[path]
        found = self.objects.get(path)
        if found is None:
            raise RefusedError(404, "the API server refuses (404): not found")
        if path == CONFIG_MAPS:
            assert query == {"fieldSelector": "metadata.name=cilium-config"}
        return {"metadata": {"resourceVersion": "5"}, "items": found}

    @contextlib.contextmanager
    def watch(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> Iterator[Iterator[Json]]:
        assert seconds > float(query["timeoutSeconds"])
        self.watches.append(query)
        self._fail(path)
        yield self._events()

    def _events(self) -> Iterator[Json]:
        while self.steps:
            event = self.steps.pop(0)()
            if event is None:
                return
            yield event
        self.now += self.watch_seconds
        self._fail("")

    def _fail(self, path: str) -> None:
        if self.down:
            raise self.down
        if path in self.refused:
            code = self.refused[path]
            raise RefusedError(code, f"the API server refuses ({code}): no reason")

    def close(self) -> None:
        self.closed.set()


def cluster_of(api: FakeApi, node: str = "", **more: Any) -> Cluster:
    return Cluster(
        lambda: api,
        node,
        monotonic=lambda: api.now,
        wall=lambda: 1e9 + api.now,
        sleep=api.sleep,
        **more,
    )


def event(kind: str, item: Json) -> Step:
    return lambda: {"type": kind, "object": item}


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
    assert "lists no objects" in cluster.state().problems["configmap"]


def test_no_api_server_is_absent() -> None:
    cluster = Cluster(lambda: None, "n1")
    cluster.run()
    state = cluster.state()
    assert state.wanted is None
    assert not any(source.up or source.errors for source in state.sources.values())
    assert "no kubeconfig" in state.problems["configmap"]


def test_an_unusable_kubeconfig_has_failed() -> None:
    def connect() -> None:
        raise OSError("config: no kubeconfig file")

    cluster = Cluster(connect, "n1")
    cluster.run()
    assert cluster.state().sources["configmap"].errors == 1
    assert cluster.state().problems["configmap"] == "config: no kubeconfig file"


def node_configs_of(api: FakeApi) -> Cluster:
    """Its node configs read once, and its ConfigMap."""
    cluster = cluster_of(api, "n1", pods=True)
    cluster._api = api
    for name, resource, seen in (
        ("configmap", cluster._config_maps(), cluster._config_seen),
        ("nodeconfigs", cluster._node_configs(), cluster._node_configs_seen),
        ("pods", cluster._pods(), lambda: None),
    ):
        cluster._reachable.set()
        watch: Watch[Any] = cluster._watch(api, resource, seen)
        cluster._watches[name] = watch
        api.now = api.end - 1
        watch.run()
    return cluster


def node_config(name: str, selector: Any, **defaults: str) -> Json:
    spec = {"nodeSelector": selector, "defaults": config_map(**defaults)["data"]}  # type: ignore[arg-type]
    return {"metadata": {"name": name, "resourceVersion": "1"}, "spec": spec}


@pytest.mark.parametrize("version", ["v2", "v2alpha1"])
def test_node_configs(version: str) -> None:
    api = FakeApi()
    api.objects[CONFIG_MAPS] = [config_map(mtu="1500", routing_mode="native")]
    api.objects[NODE_CONFIGS.format(version)] = [
        node_config("b", {"matchLabels": {"zone": "a"}}, mtu="9000"),
        node_config("a", {}, mtu="1400", enable_ipv6_big_tcp="true"),
        node_config("c", {"matchLabels": {"zone": "z"}}, mtu="1"),
        node_config("d", None, mtu="2"),
        {"metadata": {"name": "e"}, "spec": {"nodeSelector": 7, "defaults": []}},
    ]
    api.others["/api/v1/nodes/n1"] = {"metadata": {"labels": {"zone": "a"}}}
    state = node_configs_of(api).state()
    assert state.wanted
    assert state.wanted.values == {
        "mtu": "9000",
        "routing-mode": "native",
        "enable-ipv6-big-tcp": "true",
    }
    assert state.wanted.overridden == {"mtu": "b", "enable-ipv6-big-tcp": "a"}
    assert state.wanted.changed is None
    assert state.sources["nodeconfigs"].up


@pytest.mark.parametrize("code", [403, 404])
def test_no_node_configs_is_no_failure(code: int) -> None:
    api = FakeApi()
    api.refused = dict.fromkeys(map(NODE_CONFIGS.format, ("v2", "v2alpha1")), code)
    state = node_configs_of(api).state()
    assert state.wanted
    assert state.sources["nodeconfigs"].errors == 0
    assert f"({code})" in state.problems["nodeconfigs"]


def test_node_configs_without_the_right_to_the_node() -> None:
    """Whether they select this node cannot be told: that is a failure."""
    api = FakeApi()
    selector = {"matchLabels": {"zone": "a"}}
    api.objects[NODE_CONFIGS.format("v2")] = [node_config("a", selector, mtu="1")]
    api.refused["/api/v1/nodes/n1"] = 403
    state = node_configs_of(api).state()
    assert state.wanted
    assert state.wanted.values == {}
    assert state.sources["nodeconfigs"].errors >= 1
    assert "(403)" in state.problems["nodeconfigs"]


def test_pods() -> None:
    def pod(name: str, **status: Any) -> Json:
        metadata = {"name": name, "namespace": "default", "resourceVersion": "1"}
        return {"metadata": metadata, "spec": {}, "status": status}

    api = FakeApi()
    ips = [{"ip": "10.0.0.7"}, {"ip": "FD00:0::7"}, {}]
    started = "2026-01-02T03:04:05Z"
    host = pod("host", podIPs=None)
    host["spec"] = {"hostNetwork": True}
    api.objects["/api/v1/pods"] = [
        pod("web", podIPs=ips, startTime=started, phase="Running"),
        pod("done", podIPs=ips, phase="Succeeded"),
        host,
    ]
    assert node_configs_of(api).state().pods == (
        Pod("default", "host", (), host_network=True, started=None),
        Pod("default", "web", ("10.0.0.7", "fd00::7"), False, 1767323045.0),
    )


def test_only_the_scout_knocks_at_a_server_that_is_away() -> None:
    api = FakeApi()
    api.objects = {"/x": []}
    reachable = threading.Event()
    resource: Resource[Json] = Resource("x", ("/x",), {}, lambda item: item)
    watch = Watch(
        api,
        resource,
        lambda: None,
        reachable=reachable,
        clock=Clock(api.sleep, lambda: api.now),
        scout=False,
    )
    thread = threading.Thread(target=watch.run)
    thread.start()
    assert watch.objects is None
    assert api.lists == []
    reachable.set()
    wait_until(lambda: watch.objects == {}, "the list")
    thread.join()


def test_retries_are_quick_first_and_slow_at_last() -> None:
    waits = [retry_seconds(failures, 0) for failures in range(1, 12)]
    assert waits[:8] == [0.25, 0.5, 1, 2, 4, 8, 16, 30]
    assert set(waits[8:]) == {30}
    assert retry_seconds(1_000_000, 1) == 37.5
