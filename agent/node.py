# SPDX-License-Identifier: Apache-2.0
"""All sources of this node, opened together, behind one collector."""

import contextlib
import os
import platform
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import structlog

from agent import privileges
from agent.cluster.cilium import (
    RUNTIME_FILE,
    left_anything,
    read_applied,
    read_runtime_config,
    read_stored_endpoints,
)
from agent.cluster.polled import Polled
from agent.cluster.relay import Relay
from agent.errors import KernelError
from agent.kernel.links import Rtnetlink, own_netns_cookie
from agent.kernel.loader import Loader
from agent.kernel.probes import Probes
from agent.kernel.snmp import ip6_in_too_big_errors
from agent.settings import Cluster
from agent.snapshot.cilium import Applied, ClusterState, Endpoint
from agent.snapshot.collector import Collector
from agent.snapshot.endpoints import named_by_address
from agent.snapshot.model import Hook, Source
from agent.snapshot.naming import Naming
from agent.snapshot.pods import PodName, Pods, PodsTraffic
from agent.snapshot.snapshot import Snapshot
from agent.snapshot.sources import NOTHING_HERE, Remembered, Surroundings, Told

_CILIUM_SECONDS = 5.0

_CILIUM_NOT_ASKED: Told[Applied] = Told(
    None, Source(up=False, errors=0), "not asked: --no-cilium"
)
_NOT_ASKED = ClusterState(
    wanted=None,
    pods=None,
    sources={"configmap": NOTHING_HERE.state, "nodeconfigs": NOTHING_HERE.state},
    problems=dict.fromkeys(("configmap", "nodeconfigs"), "not asked: no --node-name"),
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A node with its probes attached."""

    collector: Collector
    probes: Probes
    pods: "PodWatch | None"  # where single pods are wanted
    relay: Relay | None  # where Cilium is asked, and this process may not do it itself


class PodWatch:
    """Single pods: tells the kernel their addresses, and their traffic by name."""

    def __init__(self, most: int) -> None:
        self._pods = Pods(most)
        self._lock = threading.Lock()
        self._probes: Probes | None = None
        self._endpoints: tuple[Endpoint, ...] = ()
        # As they were called last. `_endpoints` has only the names that Cilium tells:
        # one by address is looked up anew each time, for it may be another's by then.
        self._called: tuple[Endpoint, ...] = ()

    def attach(self, probes: Probes) -> None:
        """From now on the kernel is told."""
        with self._lock:
            self._probes = probes
            self._tell()

    def see(self, applied: Applied) -> None:
        """Cilium has answered; where it does not, the last answer stays.

        A pod that is not listed stays, too, while its device does: an agent that
        has just begun lists few of them until it has restored the others.
        """
        with self._lock:
            pods = (each for each in applied.endpoints if each.is_pod)
            listed = _keep_names(pods, self._endpoints)
            indexes = {each.ifindex for each in listed}
            kept = tuple(
                each
                for each in self._endpoints
                if each.ifindex not in indexes and _is_here(each.ifindex)
            )
            self._endpoints = (*kept, *listed)  # last: an address is who has it now
            self._tell()

    def _tell(self) -> None:
        if self._probes is None:
            return
        without_room = self._probes.set_pod_addresses(
            {ip: each.ifindex for each in self._endpoints for ip in each.addresses}
        )
        if without_room:
            _log.warning("addresses of pods found no room", count=without_room)

    def traffic(self, snapshot: Snapshot) -> PodsTraffic:
        """What each pod sent and received, the rest in one sum.

        A pod that has its name by its address keeps it while its device is there: the
        API server may drop the pod first.
        """
        with self._lock:
            found = named_by_address(self._endpoints, snapshot.cluster)
            self._called = _keep_names(found, self._called)
            names = {
                each.ifindex: PodName(each.namespace, each.pod or each.name)
                for each in self._called
            }
        return self._pods.traffic(snapshot, names)


def _keep_names(
    endpoints: Iterable[Endpoint], before: Iterable[Endpoint]
) -> tuple[Endpoint, ...]:
    """A pod that once had a name keeps it: its series must not change theirs."""
    names = {
        (each.id, each.ifindex): (each.namespace, each.pod)
        for each in before
        if each.pod
    }

    def keep(endpoint: Endpoint) -> Endpoint:
        name = names.get((endpoint.id, endpoint.ifindex))
        if endpoint.pod or name is None:
            return endpoint
        return replace(endpoint, namespace=name[0], pod=name[1])

    return tuple(map(keep, endpoints))


def _is_here(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def opened(
    hooks: Sequence[Hook],
    where: Cluster,
    naming: Naming | None = None,
    most_pods: int = 0,
    *,
    restrict: bool = False,
) -> Iterator[Node]:
    """Load the probes and begin to watch; KernelError where that cannot be.

    `most_pods`: how many single pods to tell apart, 0 for none. `restrict`: this
    process keeps no capability and reaches no unix socket, for good
    (agent.privileges).
    """
    with contextlib.ExitStack() as stack:
        netns = own_netns_cookie()
        watch = PodWatch(most_pods) if most_pods else None
        # It compiles while we look around.
        pods_of = netns if watch else None
        loader = Loader(hooks, own_netns=netns, pods_of=pods_of)
        stack.callback(loader.close)
        loader.start()
        # Before any thread: each has capabilities of its own.
        relay = _restrict(stack, where.cilium_socket) if restrict else None
        rtnetlink = Rtnetlink()
        stack.callback(rtnetlink.close)
        around = replace(
            _surroundings(stack, where, watch, relay), naming=naming or Naming()
        )
        probes = stack.enter_context(Probes.from_loader(loader))
        if watch:
            watch.attach(probes)
        collector = Collector(probes, rtnetlink.links, netns, around)
        stack.callback(collector.close)
        try:
            collector.snapshot()  # coverage and what is recent count from here
        except OSError as err:
            raise KernelError(
                f"the kernel's counters cannot be read: {err}", "try it again"
            ) from err
        yield Node(collector, probes, watch, relay)


def _restrict(stack: contextlib.ExitStack, cilium_socket: str) -> Relay | None:
    """Give up capabilities and unix sockets; what still asks Cilium's agent, None
    where it is not to be asked.
    """
    try:
        privileges.drop_capabilities()
    except OSError as err:
        raise KernelError(
            f"capabilities cannot be dropped: {err.strerror}",
            "allow capset(2) and prctl(2) in the seccomp profile of the container",
        ) from err
    relay = stack.enter_context(Relay(cilium_socket)) if cilium_socket else None
    try:
        privileges.deny_unix_sockets()
    except OSError as err:
        _log.warning("unix sockets stay open to this process", error=err.strerror)
    return relay


def _surroundings(
    stack: contextlib.ExitStack,
    where: Cluster,
    watch: PodWatch | None,
    relay: Relay | None = None,
) -> Surroundings:
    if not where.cilium_socket:
        return _with_cluster(
            stack,
            where,
            Surroundings(
                applied=lambda: _CILIUM_NOT_ASKED,
                cilium_left=lambda: False,
                ip6_too_big=ip6_in_too_big_errors,
                kernel=platform.release(),
                node=where.node or platform.node(),
            ),
        )

    def read() -> Applied | None:
        applied = read_applied(where.cilium_socket, relay=relay)
        if applied is not None and watch is not None:
            watch.see(applied)
        return applied

    cilium = Remembered("cilium", read)
    applied = stack.enter_context(Polled(cilium, _CILIUM_SECONDS))
    file = os.path.join(os.path.dirname(where.cilium_socket), RUNTIME_FILE)
    around = Surroundings(
        applied=applied.last,
        runtime=lambda: read_runtime_config(file),
        cilium_left=lambda: left_anything(where.cilium_socket),
        stored_endpoints=lambda: read_stored_endpoints(where.cilium_socket),
        ip6_too_big=ip6_in_too_big_errors,
        kernel=platform.release(),
        node=where.node or platform.node(),
    )
    return _with_cluster(stack, where, around)


def _with_cluster(
    stack: contextlib.ExitStack, where: Cluster, around: Surroundings
) -> Surroundings:
    if not where.node:
        return replace(around, cluster=lambda: _NOT_ASKED)
    from agent.cluster import wanted
    from agent.cluster.kube import connect

    cluster = stack.enter_context(
        wanted.Cluster(
            lambda: connect(where.kubeconfig),
            where.node,
            namespace=where.namespace,
            config_map=where.config_map,
            pods=where.pods,
            cilium_pods=where.cilium_pods,
        )
    )
    return replace(around, cluster=cluster.state)
