# SPDX-License-Identifier: Apache-2.0
"""The cluster for people: `make cluster`, or python -m tests.cluster VERB."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from agent.errors import AgentError
from tests.cluster import cluster
from tests.cluster.stages import STAGES, go_to

_HINTS = """
    export KUBECONFIG={kubeconfig} PATH={programs}:$PATH
    kubectl get pods --all-namespaces --output=wide
    kubectl -n kube-system edit configmap cilium-config
    kubectl -n kube-system rollout restart daemonset/cilium
    {me} stage {stages}
    {me} netperf                            between the pods, both families
    {me} exec node1 -- bigtcp-agent run     whatever you like, on a node
    make cluster-down
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description=__doc__
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="bring it up; one that is up is taken down first")
    verbs.add_parser("down", help="leave nothing of it, whatever happened")
    cilium = verbs.add_parser("cilium", help="change Cilium's ConfigMap and restart it")
    cilium.add_argument("setting", nargs="*", help="enable-ipv4-big-tcp=true")
    verbs.add_parser("restart-pods", help="they get the sizes that Cilium has now")
    bridge = verbs.add_parser("bridge", help="size limits between the nodes")
    bridge.add_argument("size", type=int, help=f"{cluster.LEGACY} or {cluster.BIG}")
    load = verbs.add_parser("load", help="give the nodes an image")
    load.add_argument("archive", type=Path, help="by `podman save`")
    stage = verbs.add_parser("stage", help="walk to a stage")
    stage.add_argument("stage", choices=STAGES)
    verbs.add_parser("netperf", help="TCP_RR between the pods")
    run = verbs.add_parser("exec", help="run a command on a node")
    run.add_argument("node", choices=["node1", "node2"])
    run.add_argument("argv", nargs="+", metavar="COMMAND")
    return parser.parse_args()


def _up() -> None:
    cluster.up(with_us=False)
    me = f"sudo env XDG_CACHE_HOME={cluster.CACHE.parent.parent} "
    me += f"{sys.executable} -m tests.cluster"
    kubeconfig = cluster.STATE / "kubeconfig"
    if "SUDO_UID" in os.environ:  # for whoever asked for it
        os.chown(kubeconfig, int(os.environ["SUDO_UID"]), -1)
    print("The cluster is up. Try:")
    print(
        _HINTS.format(
            kubeconfig=kubeconfig,
            programs=cluster.CACHE / "bin",
            me=me,
            stages="|".join(STAGES),
        )
    )


def _change(wanted: argparse.Namespace) -> int:
    with cluster.attached() as up:
        if wanted.verb == "cilium":
            up.configure_cilium(**dict(word.split("=", 1) for word in wanted.setting))
            up.restart_cilium()
        elif wanted.verb == "restart-pods":
            up.restart_pods()
        elif wanted.verb == "bridge":
            up.set_bridge(wanted.size)
        elif wanted.verb == "load":
            up.load(wanted.archive)
        elif wanted.verb == "stage":
            go_to(up, wanted.stage)
        elif wanted.verb == "netperf":
            for family in ("ipv4", "ipv6"):
                found = up.netperf(family)
                print(
                    f"{family} {found.transactions_per_second:,.0f} transactions/s, "
                    f"p99 {found.latency_us.p99:,.0f} µs"
                )
        elif wanted.verb == "exec":
            node = next(node for node in up.nodes if node.name == wanted.node)
            return subprocess.run(node.command(*wanted.argv), check=False).returncode
    return 0


def main() -> int:
    wanted = _arguments()
    try:
        if wanted.verb == "up":
            _up()
        elif wanted.verb == "down":
            cluster.down()
        else:
            return _change(wanted)
    except AgentError as err:
        print(f"error: {err}\nhint: {err.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
