# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes wants of Cilium on this node, kept current in the background.

It asks for one ConfigMap, the CiliumNodeConfigs beside it, this node's labels
where a node config selects by label, and, if they are wanted, this node's pods and
the pod of Cilium's agent.
"""

import datetime as dt
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

import structlog

from agent.cluster.answer import printable
from agent.cluster.api import Api, Json
from agent.cluster.cilium import canonical
from agent.cluster.nodeconfig import NodeConfig, overrides, relevant
from agent.cluster.watch import LIST_SECONDS, Clock, Resource, Watch
from agent.snapshot.cilium import CiliumPod, ClusterState, Pod, Wanted
from agent.snapshot.model import Source

DEFAULT_NAMESPACE = "kube-system"
DEFAULT_CONFIG_MAP = "cilium-config"
_JOIN_SECONDS = 2.0
_ENDED = ("Succeeded", "Failed")
# In Cilium's chart, templates/cilium-agent/daemonset.yaml.
_CILIUM_SELECTOR = "k8s-app=cilium"
_CILIUM_CONTAINER = "cilium-agent"
_CILIUM_POD_SECONDS = 30.0
_MOST_ADDRESSES = 16  # of a pod; Kubernetes gives it one of each family
_MOST_SELECTOR = 16384  # characters of JSON
_MOST_MESSAGE = 4096  # characters; a kubelet keeps that many bytes

_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Cluster:
    """Follows the API server in threads of its own, from `with` on.

    `connect` is called there, once: it may be slow, returns None where there is
    no API server, and raises OSError where it is unusable. Without the name of
    the node there are neither node configs nor pods.
    """

    def __init__(  # noqa: PLR0913  what to ask for, and the clocks
        self,
        connect: Callable[[], Api | None],
        node: str,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        config_map: str = DEFAULT_CONFIG_MAP,
        pods: bool = False,
        cilium_pods: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], bool] | None = None,
    ) -> None:
        self._connect = connect
        self._node = node
        self._namespace = namespace
        self._config_map = config_map
        self._names = (
            *("configmap", "nodeconfigs"),
            *(("pods",) if pods else ()),
            *(("cilium_pods",) if cilium_pods else ()),
        )
        self._stop = threading.Event()
        self._clock = Clock(sleep or self._stop.wait, monotonic, wall)
        self._api: Api | None = None
        self._threads: list[threading.Thread] = []
        self._reachable = threading.Event()
        self._failure = Source(up=False, errors=0)
        self._problem = "not connected yet"
        self._watches: dict[str, Watch[Any]] = {}
        self._lock = threading.Lock()  # of what stands below
        self._config: dict[str, dict[str, str]] | None = None
        self._overrides: tuple[dict[str, str], dict[str, str]] | None = None
        self._changed: float | None = None
        self._seen = 0.0
        self._wanted: Wanted | None = None

    def __enter__(self) -> Self:
        self._start("cluster", self.run)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._reachable.set()
        if self._api is not None:
            self._api.close()
        until = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def state(self) -> ClusterState:
        """What is known now; never waits for the API server."""
        watches = self._watches
        sources, problems = {}, {}
        for name in self._names:
            watch = watches.get(name)
            sources[name] = watch.source if watch else self._failure
            if not sources[name].up:
                problems[name] = watch.problem if watch else self._problem
        with self._lock:
            wanted = self._wanted
        return ClusterState(
            wanted=wanted,
            pods=_sorted(watches.get("pods")),
            sources=sources,
            problems=problems,
            cilium_pods=_sorted(watches.get("cilium_pods")),
        )

    def run(self) -> None:
        """Connect, then follow until the end: what the thread does."""
        try:
            api = self._connect()
        except OSError as err:
            _log.warning("source failed", source="configmap", error=str(err))
            self._problem = str(err)
            self._failure = Source(up=False, errors=1)
            return
        if api is None:
            self._problem = "no API server: not in a pod, and no kubeconfig"
            return
        self._api = api
        if self._stop.is_set():  # it took longer than we had
            api.close()
        self._problem = "the name of this node is not known"
        scout = self._watch(api, self._config_maps(), self._config_seen)
        self._watches = {"configmap": scout}
        if self._node:
            configs = self._watch(api, self._node_configs(), self._node_configs_seen)
            self._watches["nodeconfigs"] = configs
            self._start("nodeconfigs", configs.run)
        if self._node and "pods" in self._names:
            self._follow(api, self._pods())
        if self._node and "cilium_pods" in self._names:
            self._follow(api, self._cilium_pods())
        scout.run()

    def _follow(self, api: Api, resource: Resource[Any]) -> None:
        watch = self._watch(api, resource, lambda: None)
        self._watches[resource.name] = watch
        self._start(resource.name, watch.run)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _watch(
        self, api: Api, resource: Resource[T], seen: Callable[[], None]
    ) -> Watch[T]:
        return Watch(
            api,
            resource,
            seen,
            reachable=self._reachable,
            clock=self._clock,
            scout=resource.name == "configmap",
        )

    def _config_maps(self) -> Resource[dict[str, str]]:
        return Resource(
            "configmap",
            (f"/api/v1/namespaces/{self._namespace}/configmaps",),
            # The field selector is what makes a Role with resourceNames do.
            {"fieldSelector": f"metadata.name={self._config_map}"},
            lambda item: relevant(item.get("data")),
        )

    def _node_configs(self) -> Resource[NodeConfig]:
        of = f"namespaces/{self._namespace}/ciliumnodeconfigs"
        # v2 is new in 1.16; v2alpha1 is what there was before.
        paths = (f"/apis/cilium.io/v2/{of}", f"/apis/cilium.io/v2alpha1/{of}")
        return Resource("nodeconfigs", paths, {}, _node_config, optional=True)

    def _pods(self) -> Resource[Pod]:
        here = {"fieldSelector": f"spec.nodeName={self._node}"}
        return Resource("pods", ("/api/v1/pods",), here, _pod)

    def _cilium_pods(self) -> Resource[CiliumPod]:
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        query = {
            "labelSelector": _CILIUM_SELECTOR,
            "fieldSelector": f"spec.nodeName={self._node}",
            "resourceVersion": "0",  # from the API server's cache, not from etcd
        }
        return Resource(
            "cilium_pods",
            (path,),
            query,
            _cilium_pod,
            poll_seconds=_CILIUM_POD_SECONDS,
        )

    def _config_seen(self) -> None:
        found = self._watches["configmap"].objects
        with self._lock:
            self._seen = self._clock.wall()
            if self._config not in (None, found):
                self._changed = self._seen
            self._config = found
            self._join()

    def _node_configs_seen(self) -> None:
        configs = list((self._watches["nodeconfigs"].objects or {}).values())
        # With the labels of now, though Cilium reads them only when it starts.
        labels = self._labels() if any(config.selector for config in configs) else {}
        found = overrides(configs, labels)
        with self._lock:
            if self._overrides not in (None, found):
                self._changed = self._clock.wall()
            self._overrides = found
            self._join()

    def _join(self) -> None:
        if self._config is None:
            return
        data = next(iter(self._config.values()), None)
        values, setters = self._overrides or ({}, {})
        self._wanted = Wanted(
            values={**(data or {}), **values},
            found=data is not None,
            overridden=setters,
            changed=self._changed,
            seen=self._seen,
        )

    def _labels(self) -> dict[str, str]:
        assert self._api is not None
        node = self._api.get(f"/api/v1/nodes/{self._node}", {}, LIST_SECONDS)
        try:
            return dict(node["metadata"].get("labels") or {})
        except (LookupError, TypeError, AttributeError, ValueError) as err:
            raise OSError(f"node {self._node} has no labels that make sense") from err


def _node_config(item: Json) -> NodeConfig | None:
    """One that sets any key of ours."""
    spec = item.get("spec") or {}
    selector, defaults = spec.get("nodeSelector"), relevant(spec.get("defaults"))
    if not defaults or not isinstance(selector, dict):
        return None
    name = item["metadata"]["name"]
    if len(json.dumps(selector)) > _MOST_SELECTOR:
        raise OSError(f"CiliumNodeConfig {name}: its nodeSelector is too long")
    return NodeConfig(name, selector, defaults)


def _pod(item: Json) -> Pod | None:
    """One that has not ended: the addresses of those that have are given away."""
    metadata, status = item["metadata"], item.get("status") or {}
    if status.get("phase") in _ENDED:
        return None
    ips = (status.get("podIPs") or [])[:_MOST_ADDRESSES]
    addresses = (canonical(one.get("ip")) for one in ips)
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        addresses=tuple(address for address in addresses if address),
        host_network=bool((item.get("spec") or {}).get("hostNetwork")),
        started=_epoch(status.get("startTime")),
    )


def _cilium_pod(item: Json) -> CiliumPod | None:
    """Of the container that keeps the agent from running: one that waits, the first
    of those that prepare it, or the agent's own.
    """
    status = item.get("status") or {}
    if status.get("phase") in _ENDED:
        return None  # evicted: its DaemonSet makes another
    containers = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    agents = [each for each in containers if each.get("name") == _CILIUM_CONTAINER]
    failing = [each for each in containers if _failing(each)]
    stuck = [each for each in containers if _stuck(each)]
    container: Json = next(iter([*failing, *stuck, *agents]), {})
    state = container.get("state") or {}
    ended = state.get("terminated") or (container.get("lastState") or {}).get(
        "terminated"
    )
    ended = ended or {}
    return CiliumPod(
        namespace=printable(item["metadata"]["namespace"]),
        name=printable(item["metadata"]["name"]),
        waiting=printable(
            (state.get("waiting") or {}).get("reason")
            or ("" if state else status.get("phase") or "Pending")
        ),
        restarts=int(container.get("restartCount") or 0),
        exit_code=int(ended["exitCode"]) if "exitCode" in ended else None,
        reason=printable(ended.get("reason") or ""),
        message=str(ended.get("message") or "")[-_MOST_MESSAGE:],
        finished=_epoch(ended.get("finishedAt")),
        container=printable(container.get("name") or _CILIUM_CONTAINER),
    )


def _stuck(container: Json) -> bool:
    """It waits for more than the containers before it, such as for its image."""
    waiting = (container.get("state") or {}).get("waiting") or {}
    ordinary = (None, "PodInitializing", "ContainerCreating")
    return waiting.get("reason") not in ordinary


def _failing(container: Json) -> bool:
    """It ended with an error, and does not run now."""
    state = container.get("state") or {}
    last = (container.get("lastState") or {}).get("terminated")
    ended = state.get("terminated") or (last if "waiting" in state else None)
    return bool(ended and ended.get("exitCode"))


def _sorted(watch: Watch[T] | None) -> tuple[T, ...] | None:
    objects = watch.objects if watch else None
    return None if objects is None else tuple(objects[key] for key in sorted(objects))


def _epoch(time_text: object) -> float | None:
    """Of RFC 3339, as Kubernetes writes times."""
    try:
        seconds = dt.datetime.fromisoformat(str(time_text)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= 0 else None
