# SPDX-License-Identifier: Apache-2.0
"""What goes wrong beside the stages of test_chart_walk.py, each by its real cause:
the alert that it raises, on which nodes, and no other: what the test before has
raised is silent again.
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Exit
from agent.kernel.contract import bpf_directory
from agent.lab.netns import wait_until
from agent.lab.netperf import tcp_rr_command
from tests.cluster import stages
from tests.cluster.cluster import LEGACY, Cluster
from tests.cluster.observed import (
    BOTH,
    FAMILIES,
    World,
    expect,
    netperf_record,
    observed,
    upgrade,
)
from tests.cluster.release import NAME, Release
from tests.kernel.frames import SOL_PACKET

# netperf is there from the start, for its place in the monitor; it runs when told.
VALUES = (
    *("--set=netperf.enabled=true", "--set=netperf.schedule=0 0 1 1 *"),
    "--set=netperf.seconds=1,netperf.repeats=1,netperf.hold=60",
)
BYPASS = 20  # PACKET_QDISC_BYPASS, which is a way past all hooks
DAEMONSET = f"daemonset/{NAME}"


@pytest.fixture(scope="module")
def world(
    stocked: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """All is well: BIG TCP on, pods restarted, the bridge raised."""
    try:
        stages.go_to(stocked, "on")
        folder = tmp_path_factory.mktemp("prometheus")
        with observed(stocked, folder, *VALUES) as made:
            expect(made, {})
            yield made
    finally:
        stages.off(stocked)


def add_capabilities(release: Release, *names: str) -> None:
    """As a cluster's policy may do to what the chart asked for."""
    path = "/spec/template/spec/containers/0/securityContext/capabilities/add"
    patch = [{"op": "replace", "path": path, "value": names}]
    release.kubectl("patch", DAEMONSET, "--type=json", f"--patch={json.dumps(patch)}")


def last_words(pod: dict[str, Any]) -> str:
    """Of an agent that may not count."""
    for container in pod["status"].get("containerStatuses", []):
        end = container["lastState"].get("terminated")
        if end and end["exitCode"] == Exit.KERNEL:
            return str(end["message"])
    return ""


def test_an_agent_that_may_not_count(world: World) -> None:
    """A rollout stops at the first node; there Kubernetes shows what it said."""
    release = world.release

    def ended() -> dict[str, str]:
        pods = release.pods().items()
        return {node: said for node, pod in pods if (said := last_words(pod))}

    try:
        add_capabilities(release, "BPF")
        said = wait_until(ended, "an agent to end")
        expect(world, {"BigTCPAgentDown": set(said)})
        (words,) = said.values()
        assert "operation not permitted\nhint: run as root" in words
    finally:
        add_capabilities(release, "BPF", "PERFMON")
        release.rolled_out()


@contextlib.contextmanager
def refused(release: Release, hook: str, folder: Path) -> Iterator[None]:
    """The agents' program reads more of a tracepoint than there is: the kernel's
    verifier refuses that hook.
    """
    text = (bpf_directory() / "skb_length.c").read_text()
    before, begin, after = text.partition(f"int {hook}(u64 *ctx)")
    assert "ctx[0]" in after
    text = before + begin + after.replace("ctx[0]", "ctx[99]", 1)
    (folder / "skb_length.c").write_text(text)
    release.kubectl(
        "create", "configmap", "refused", f"--from-file={folder}/skb_length.c"
    )
    where = "from agent.kernel.contract import bpf_directory as b; print(b())"
    place = release.kubectl("exec", DAEMONSET, "--", "python", "-c", where).strip()
    mount = {
        "name": "refused",
        "mountPath": f"{place}/skb_length.c",
        "subPath": "skb_length.c",
    }
    values = {
        "extraVolumes": [{"name": "refused", "configMap": {"name": "refused"}}],
        "extraVolumeMounts": [mount],
    }
    (folder / "values.yaml").write_text(json.dumps(values))
    try:
        release.apply("upgrade", "--reuse-values", f"--values={folder}/values.yaml")
        release.rolled_out()
        yield
    finally:
        nothing = ("--set-json=extraVolumes=[]", "--set-json=extraVolumeMounts=[]")
        release.apply("upgrade", "--reuse-values", *nothing)
        release.rolled_out()
        release.kubectl("delete", "configmap", "refused")


def test_a_hook_that_the_kernel_refuses(world: World, tmp_path: Path) -> None:
    with refused(world.release, "net_dev_queue", tmp_path):
        expect(world, {"BigTCPHookNotAttached": BOTH})


def test_applications_that_write_little(world: World) -> None:
    """Half a minute without a pause: a rate looks back over five seconds."""

    def small(cluster: Cluster) -> None:
        addresses = cluster.pod_addresses("netperf-server")

        def to(family: str) -> None:
            argv = tcp_rr_command(addresses[family], 5, request=32_000, response=32_000)
            cluster.kubectl("exec", "deployment/netperf-client", "--", *argv)

        with ThreadPoolExecutor(len(FAMILIES)) as pool:
            list(pool.map(to, FAMILIES))

    expect(world, {"BigTCPNotObserved": BOTH}, small, 300)


def past_the_stack(cluster: Cluster) -> None:
    """Frames from node1's uplink to nobody, by no hook: 1.5 MB in half a second."""
    frame = b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(1486)

    def opened() -> socket.socket:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)

    with cluster.nodes[0].call(opened) as raw:
        raw.setsockopt(SOL_PACKET, BYPASS, 1)
        raw.bind(("eth0", 0))
        for _ in range(1000):
            raw.send(frame)


def test_packets_that_go_past_the_stack(world: World) -> None:
    expect(world, {"BigTCPCoverageOff": {"node1"}}, past_the_stack, 300)


def test_a_cilium_that_does_not_start(world: World) -> None:
    """It refuses BIG TCP with legacy host routing. What it has raised stays so."""
    cluster = world.cluster
    try:
        cluster.configure_cilium(enable_host_legacy_routing="true")
        cluster.kubectl(
            *("--namespace=kube-system", "delete", "pods", "--selector=k8s-app=cilium")
        )
        expect(world, {"BigTCPBlind": BOTH})
    finally:
        cluster.configure_cilium(enable_host_legacy_routing="false")
        cluster.restart_cilium()


def test_netperf_again_and_again(world: World) -> None:
    """A CronJob; between two of its runs somebody lowers the bridge. What was fast is
    held for longer than what is slow: it stays the median for some runs. The last
    test: that netperf was slower is told for a day.
    """
    cluster, release, _, _ = world
    release.kubectl("create", "job", "first", f"--from=cronjob/{NAME}-netperf")
    record = netperf_record(release, "job/first")
    assert record["node"]["states"] == dict.fromkeys(FAMILIES, "active")
    release.kubectl("wait", "job/first", "--for=condition=Complete", "--timeout=100s")
    cluster.set_bridge(LEGACY)
    upgrade(release, "netperf.schedule=* * * * *,netperf.hold=10")
    wanted = {"BigTCPSegmented": BOTH, "BigTCPNetperfRegressed": {""}}
    expect(world, wanted, seconds=300)  # the first of them may come late
    upgrade(release, "netperf.schedule=0 0 1 1 *")
