# SPDX-License-Identifier: Apache-2.0
"""Two nodes with pods, an agent on each, netperf between them, and a Prometheus with
the chart's rules that scrapes it all.

Real: packets, devices, agents, netperf, Prometheus. Cilium's agents are recorded
answers behind a socket. What nothing here can say is written as text: results of
netperf in its metrics' names (the numbers are netperf's), and when the ConfigMap
changed.
"""

import contextlib
import copy
import http.server
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.lab import netperf
from agent.lab.netns import wait_until
from agent.lab.programs import require
from agent.snapshot.experiment import Netperf
from agent.snapshot.model import Family
from tests.kernel.nodes import (
    FAMILIES,
    Node,
    Pod,
    ebpf_host_routing,
    send,
    two_nodes,
)
from tests.process import agent
from tests.prometheus import Prometheus, prometheus
from tests.sources.agent import Answers, answering, pod_endpoint, recorded
from tests.sources.agent import agent as cilium

LEGACY, BIG = 65536, 196608
# netperf and its softirqs take all of the last CPU; others have their own work.
FIRST = ("taskset", "-c", str(min(os.sched_getaffinity(0))), "nice", "-n", "-15")
RULES = Path(__file__).parent.parent.parent / "charts/bigtcp-agent/rules"


def words(node: Node, size: int) -> Answers:
    """What Cilium's agent of a node says, with BIG TCP off or on in both families."""
    enabled = size > LEGACY
    answers: dict[str, Any] = copy.deepcopy(recorded("1.20.2")["on"])
    health = answers["/v1/healthz"]
    health["kube-proxy-replacement"]["devices"] = ["eth0"]
    for family in FAMILIES:
        health[f"{family}-big-tcp"] = {
            "enabled": enabled,
            "maxGSO": size,
            "maxGRO": size,
        }
    answers["/v1/endpoint"] = [
        pod_endpoint(
            pod.host,
            "default",
            pod.space.name,
            **{
                "addressing": [
                    {str(family): pod.addresses[family] for family in FAMILIES}
                ],
                "interface-index": pod.host,
                "interface-name": pod.device,
            },
        )
        for pod in node.pods
    ]
    return answers


@dataclass
class Text:
    """What is served as /metrics of a target that is no agent."""

    lines: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def served(self, node: Node) -> Iterator[int]:
        """In a node's namespace; the port."""
        text = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write("".join(f"{line}\n" for line in text.lines).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = node.space.call(
            lambda: http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        )
        with server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield int(server.server_address[1])
            finally:
                server.shutdown()
                thread.join()


@dataclass
class Stand:
    """`client` and `server` are the pods between which netperf runs, `left` a pod
    that is never restarted. `changed`: when the ConfigMap was seen to change, which
    has no series before.
    """

    nodes: tuple[Node, Node]
    client: Pod
    left: Pod
    server: Pod
    prometheus: Prometheus
    answers: tuple[Answers, Answers]
    addresses: tuple[str, str]
    results: Text
    config: Text
    changed: int | None = None

    def big_tcp(self, size: int) -> None:
        """As Cilium does it and as an admin then restarts all pods but one."""
        for node, answers in zip(self.nodes, self.answers, strict=True):
            node.space.set_sizes("eth0", size)
            for pod in node.pods:
                if pod is not self.left:
                    node.space.set_sizes(pod.device, size)
                    pod.space.set_sizes("eth0", size)
            answers.update(words(node, size))
        self.results.lines = []
        lines = [
            f'bigtcp_cilium_big_tcp_enabled{{source="configmap",ip_family="{family}"}} '
            f"{size > LEGACY:d}"
            for family in FAMILIES
        ]
        if self.config.lines:
            self.changed = int(time.time())
            metric = "bigtcp_cilium_config_changed_timestamp_seconds"
            lines.append(f"{metric} {self.changed}")
        self.config.lines = lines
        applied = "node:bigtcp_cilium_max_size_bytes:max"
        # Of both nodes: counters that one had before its first scrape would be lost.
        sizes = [size] * (len(self.nodes) * len(FAMILIES) * len(("gso", "gro")))
        wait_until(
            lambda: self.prometheus.query(applied) == sizes,
            f"Prometheus to know that Cilium applies {size}",
        )

    def cut(self, size: int) -> None:
        """Set what the uplink of the client's node sends in one piece."""
        self.nodes[0].space.set_size("eth0", gso_max=size)
        self.nodes[0].space.set_size("eth0", gso_ipv4_max=size)

    def traffic(self, seconds: int) -> dict[Family, Netperf]:
        """netperf over both families; its results are then served, and scraped."""
        begun = int(time.time())
        self.results.lines = []
        cpu = max(os.sched_getaffinity(0))
        lines = []
        results = {}
        for family in FAMILIES:
            address = self.server.addresses[family]
            found = netperf.tcp_rr(self.client.space, address, cpu, seconds)
            results[family] = found
            at = f'ip_family="{family}"'
            per_second = found.transactions_per_second
            lines += [
                f"bigtcp_netperf_transactions_per_second{{{at}}} {per_second}",
                f"bigtcp_netperf_run_timestamp_seconds{{{at}}} {time.time():.0f}",
            ]
            lines += [
                f'bigtcp_netperf_latency_seconds{{statistic="{statistic}",{at}}} '
                f"{microseconds / 1e6}"
                for statistic, microseconds in asdict(found.latency_us).items()
                if statistic != "stddev"
            ]
        self.results.lines = lines
        runs = f"count(bigtcp_netperf_run_timestamp_seconds >= {begun})"
        recorded = "count(node:bigtcp_netperf_latency_seconds:max)"
        wait_until(
            lambda: (
                self.prometheus.query(runs) == [len(FAMILIES)]
                and self.prometheus.query(recorded) == [6 * len(FAMILIES)]
            ),
            "Prometheus to have netperf's results",
        )
        return results


@contextlib.contextmanager
def stand(folder: Path) -> Iterator[Stand]:
    """All of it, BIG TCP off."""
    require("netperf", "netserver")
    with contextlib.ExitStack() as stack:
        node1, node2, client, left, server = stack.enter_context(two_nodes())
        stack.enter_context(ebpf_host_routing(node1, node2))
        netperf.serve(server.space, max(os.sched_getaffinity(0)))
        answers, addresses = [], []
        for node in (node1, node2):
            said = words(node, LEGACY)
            socket = folder / f"cilium{node.number}.sock"
            stack.enter_context(cilium(socket, answering(said)))
            _, address = stack.enter_context(
                agent(
                    *("--cilium-socket", str(socket), "--max-pods", "8"),
                    within=node.space,
                    prefix=FIRST,
                )
            )
            answers.append(said)
            addresses.append(address)
        # Series begin with a packet: what comes before Prometheus first looks is lost.
        for family in FAMILIES:
            send(client, server, family, [600])
            send(server, client, family, [600])
        results, config = Text(), Text()
        ports = [int(address.rsplit(":", 1)[1]) for address in addresses]
        scrape = {
            "bigtcp-agent": {
                "node1": f"127.0.0.1:{ports[0]}",
                "node2": f"192.0.2.2:{ports[1]}",
            },
            "netperf": {
                "node1": f"127.0.0.1:{stack.enter_context(results.served(node1))}"
            },
            "config": {
                "node1": f"127.0.0.1:{stack.enter_context(config.served(node1))}"
            },
        }
        configuration = {
            "global": {
                "scrape_interval": "2s",
                "scrape_timeout": "2s",
                "evaluation_interval": "1s",
            },
            "rule_files": [f"{RULES}/*.yaml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [
                        {
                            "targets": [target],
                            "labels": {"cluster": "lab", "node": node},
                        }
                        for node, target in targets.items()
                    ],
                }
                for job, targets in scrape.items()
            ],
        }
        its_prometheus = stack.enter_context(
            prometheus(node1.space, configuration, folder, FIRST)
        )
        found = Stand(
            (node1, node2),
            client,
            left,
            server,
            its_prometheus,
            (answers[0], answers[1]),
            (addresses[0], addresses[1]),
            results,
            config,
        )
        found.big_tcp(LEGACY)
        yield found
