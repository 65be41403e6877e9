# SPDX-License-Identifier: Apache-2.0
"""List, then watch: a copy of some Kubernetes objects that follows the API server.

As client-go's Reflector, but after all else than a watch's orderly end we list
anew: our lists are short.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import structlog

from agent.cluster.api import Api, Json, RefusedError
from agent.snapshot.model import Source

# The server ends a watch after this, spread so that not all nodes come at once.
WATCH_SECONDS = 240
WATCH_JITTER_SECONDS = 60
LIST_SECONDS = 15.0
FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 30.0
# A watch that stood this long was no failure, however it ended.
STEADY_SECONDS = 30.0
ABSENT_SECONDS = 300.0
# More of them is no list of one node's, and no name in Kubernetes is longer.
MAX_OBJECTS = 5000
_MAX_NAME = 253
_GONE, _FORBIDDEN, _NOT_FOUND = 410, 403, 404

_log = structlog.get_logger(__name__)
T = TypeVar("T")


class _AbsentError(Exception):
    """A resource that need not be there is not there."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance as a watch knows them.

    `sleep` takes seconds and returns True when all is to end; `jitter` is a
    random number from 0 to 1.
    """

    sleep: Callable[[float], bool]
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random


def retry_seconds(failures: int, jitter: float) -> float:
    """How long to wait after so many failures in a row: twice as long each time,
    from the eighth on never less than 30 s. `jitter` is 0 to 1.
    """
    doubled = FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10)
    return min(doubled, LAST_RETRY_SECONDS) * (1 + jitter / 4)


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """Which objects to follow, and what to keep of each; None keeps nothing.

    `paths` are tried in turn while they are not found. An `optional` resource
    that is not there, or not allowed, is absent: no failure. With `poll_seconds`
    it is listed so often and not watched, which needs no right to watch.
    """

    name: str
    paths: tuple[str, ...]
    query: Mapping[str, str]
    keep: Callable[[Json], T | None]
    optional: bool = False
    poll_seconds: float = 0.0


class Watch(Generic[T]):
    """The objects of a resource, by namespace/name.

    `objects` is None until they were first listed, and never changed in place;
    `seen` is called after each word of the server, bookmarks included, and may
    raise OSError: then that word was not understood. `problem` says why the
    source is not up. Of the watches that share `reachable` one is the scout:
    while the server cannot be reached, it alone tries, and the others wait.
    """

    def __init__(  # noqa: PLR0913  what, from whom, and what watches share
        self,
        api: Api,
        resource: Resource[T],
        seen: Callable[[], None],
        *,
        reachable: threading.Event,
        clock: Clock,
        scout: bool,
    ) -> None:
        self.source = Source(up=False, errors=0)
        self.problem = "not read yet"
        self.objects: dict[str, T] | None = None
        self._api = api
        self._of = resource
        self._seen = seen
        self._reachable = reachable
        self._clock = clock
        self._scout = scout

    def run(self) -> None:
        """Follow the server until the clock's `sleep` says that it is enough."""
        failures = 0
        while True:
            if not self._scout:
                self._reachable.wait()
                if self._clock.sleep(0):
                    return
            began = self._clock.monotonic()
            least = 0.0
            try:
                least = self._follow()
            except OSError as err:
                if self._clock.sleep(0):
                    return
                self._failed(err)
            steady = self._clock.monotonic() - began >= STEADY_SECONDS
            failures = 1 if steady else failures + 1
            pause = max(retry_seconds(failures, self._clock.jitter()), least)
            if self._clock.sleep(pause):
                return

    def _follow(self) -> float:
        """List, then watch for as long as the watches end in order; how many
        seconds to leave the server alone afterwards, at least.
        """
        try:
            path, version = self._list()
        except _AbsentError as err:
            self._absent(str(err))
            return ABSENT_SECONDS
        if self._of.poll_seconds:
            return self._of.poll_seconds
        while version and not self._clock.sleep(0):
            began = self._clock.monotonic()
            version = self._watch(path, version)
            if self._clock.monotonic() - began < STEADY_SECONDS:
                break  # a server that ends each watch at once is not to be chased
        return 0.0

    def _list(self) -> tuple[str, str]:
        path, answer = self._first_found()
        try:
            version = str(answer["metadata"]["resourceVersion"])
            kept = {_key(item): self._of.keep(item) for item in answer["items"] or ()}
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as err:
            raise OSError(f"{path}: the API server sends no list of objects") from err
        self.objects = {key: item for key, item in kept.items() if item is not None}
        self._up()
        return path, version

    def _first_found(self) -> tuple[str, Json]:
        for path in self._of.paths:
            try:
                return path, self._api.get(path, self._of.query, LIST_SECONDS)
            except RefusedError as err:
                if err.status == _NOT_FOUND and path != self._of.paths[-1]:
                    continue
                if self._of.optional and err.status in (_NOT_FOUND, _FORBIDDEN):
                    raise _AbsentError(str(err)) from err
                raise
        raise AssertionError("a watch has paths")

    def _watch(self, path: str, version: str) -> str:
        """Until the server ends it; the version to go on from, "" if it is gone."""
        seconds = WATCH_SECONDS + int(WATCH_JITTER_SECONDS * self._clock.jitter())
        query = {
            **self._of.query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        try:
            with self._api.watch(path, query, seconds + LIST_SECONDS) as events:
                for event in events:
                    version = self._event(path, event)
        except RefusedError as err:
            if err.status != _GONE:
                raise
            return ""
        return version

    def _event(self, path: str, event: Json) -> str:
        try:
            kind, item = event["type"], event["object"]
            if kind == "ERROR":
                code = int(item.get("code") or 0)
                raise RefusedError(code, f"{path}: {item.get('message')}")
            version = str(item["metadata"]["resourceVersion"])
            if kind != "BOOKMARK":
                kept = None if kind == "DELETED" else self._of.keep(item)
                others = dict(self.objects or {})
                others.pop(_key(item), None)
                if kept is not None:
                    others[_key(item)] = kept
                if len(others) > MAX_OBJECTS:
                    raise OSError(f"{path} has more than {MAX_OBJECTS:,} objects")
                self.objects = others
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as err:
            raise OSError(f"{path}: the API server sends an invalid event") from err
        self._up()
        return version

    def _up(self) -> None:
        self._reachable.set()
        self._seen()
        if not self.source.up and self.source.errors:
            _log.info("source is back", source=self._of.name)
        self.source = Source(True, self.source.errors, self._clock.wall())
        self.problem = ""

    def _failed(self, err: OSError) -> None:
        if isinstance(err, RefusedError):
            self._reachable.set()
        elif self._scout:
            self._reachable.clear()
        if self.source.up or not self.source.errors:
            _log.warning("source failed", source=self._of.name, error=str(err))
        self.source = replace(self.source, up=False, errors=self.source.errors + 1)
        self.problem = str(err)

    def _absent(self, why: str) -> None:
        self._reachable.set()
        if self.problem != why:
            _log.info("source is absent", source=self._of.name, reason=why)
        self.objects = {}
        self.source = replace(self.source, up=False, answered=None)
        self.problem = why
        self._seen()


def _key(item: Json) -> str:
    """ValueError where it is no name."""
    namespace, name = item["metadata"].get("namespace", ""), item["metadata"]["name"]
    if max(len(namespace), len(name)) > _MAX_NAME:
        raise ValueError
    return f"{namespace}/{name}"
