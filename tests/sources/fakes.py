# SPDX-License-Identifier: Apache-2.0
"""An API server, and time, as a test wants them."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent.cluster.api import Json, RefusedError
from agent.cluster.wanted import Cluster

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
