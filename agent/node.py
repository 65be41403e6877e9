# SPDX-License-Identifier: Apache-2.0
"""All sources of this node, opened together, behind one collector."""

import contextlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from agent.cluster.cilium import read_applied
from agent.cluster.polled import Polled
from agent.errors import KernelError
from agent.kernel.links import Rtnetlink, own_netns_cookie
from agent.kernel.loader import Loader
from agent.kernel.probes import Probes
from agent.kernel.snmp import ip6_in_too_big_errors
from agent.settings import Cluster
from agent.snapshot.collector import Collector, Surroundings
from agent.snapshot.model import Hook
from agent.snapshot.naming import Naming

_CILIUM_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Node:
    """A node with its probes attached."""

    collector: Collector
    probes: Probes


@contextlib.contextmanager
def opened(
    hooks: Sequence[Hook], where: Cluster, naming: Naming | None = None
) -> Iterator[Node]:
    """Load the probes and begin to watch; KernelError where that cannot be."""
    with contextlib.ExitStack() as stack:
        loader = Loader(hooks)  # compiles while we look around
        stack.callback(loader.close)
        rtnetlink = Rtnetlink()
        stack.callback(rtnetlink.close)
        around = replace(_surroundings(stack, where), naming=naming or Naming())
        probes = stack.enter_context(Probes.from_loader(loader))
        collector = Collector(probes, rtnetlink.links, own_netns_cookie(), around)
        stack.callback(collector.close)
        try:
            collector.snapshot()  # coverage and what is recent count from here
        except OSError as err:
            raise KernelError(
                f"the kernel's counters cannot be read: {err}", "try it again"
            ) from err
        yield Node(collector, probes)


def _surroundings(stack: contextlib.ExitStack, where: Cluster) -> Surroundings:
    applied = stack.enter_context(
        Polled(lambda: read_applied(where.cilium_socket), _CILIUM_SECONDS)
    )
    around = Surroundings(
        applied=applied.get,
        ip6_too_big=ip6_in_too_big_errors,
        kernel=platform.release(),
    )
    if not where.node:
        return around
    from agent.cluster import wanted
    from agent.cluster.kube import connect

    cluster = stack.enter_context(
        wanted.Cluster(
            lambda: connect(where.kubeconfig),
            where.node,
            namespace=where.namespace,
            config_map=where.config_map,
        )
    )
    return replace(around, cluster=cluster.state)
