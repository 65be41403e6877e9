# SPDX-License-Identifier: Apache-2.0
"""The five stages that a user of BIG TCP walks through, each after the other."""

from collections.abc import Callable

from tests.cluster.cluster import BIG, LEGACY, Cluster


def off(cluster: Cluster) -> None:
    """BIG TCP off, as Cilium comes; all devices at 64 KiB."""
    cluster.set_bridge(LEGACY)
    cluster.configure_cilium(
        enable_ipv4_big_tcp="false",
        enable_ipv6_big_tcp="false",
        enable_bpf_masquerade="true",
    )
    cluster.restart_cilium()
    cluster.restart_pods()


def enabled(cluster: Cluster) -> None:
    """Enabled in Cilium: the nodes' devices are big, the pods that run are not."""
    cluster.configure_cilium(enable_ipv4_big_tcp="true", enable_ipv6_big_tcp="true")
    cluster.restart_cilium()


def cut(cluster: Cluster) -> None:
    """Pods restarted: they send big packets, and the bridge cuts every one."""
    cluster.restart_pods()


def on(cluster: Cluster) -> None:
    """The bridge lets big packets pass: all is well."""
    cluster.set_bridge(BIG)


def legacy(cluster: Cluster) -> None:
    """Cilium falls back to legacy host routing: IPv6 ends in Packet Too Big."""
    cluster.configure_cilium(enable_bpf_masquerade="false")
    cluster.restart_cilium()


STAGES: dict[str, Callable[[Cluster], None]] = {
    stage.__name__: stage for stage in (off, enabled, cut, on, legacy)
}


def go_to(cluster: Cluster, name: str) -> None:
    """Walk from the first stage to this one."""
    for stage, step in STAGES.items():
        step(cluster)
        if stage == name:
            return
