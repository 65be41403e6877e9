# SPDX-License-Identifier: Apache-2.0
"""How many series the rules keep of the busiest node that there can be."""

import itertools
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.settings import DEFAULT_MAX_INTERFACES
from agent.snapshot.findings import FINDING_IDS
from agent.snapshot.model import Family, Hook, Scope
from agent.snapshot.verdict import State
from tests.prometheus import tool
from tests.rules.test_rules import RULES, rules

IP = {"ip_family": ("ipv4", "ipv6")}
DEVICES = [
    *((Scope.NODE, f"eth{number}") for number in range(DEFAULT_MAX_INTERFACES)),
    (Scope.NODE, "(others)"),
    (Scope.PODS, ""),
    (Scope.OTHER, ""),
]
NODES = ("n1", "n2")


def sets(labels: Mapping[str, Iterable[str]]) -> Iterable[dict[str, str]]:
    for values in itertools.product(*labels.values()):
        yield dict(zip(labels, values, strict=True))


def everything() -> Iterable[tuple[str, dict[str, str], str]]:
    """Each series that a rule reads, with every value that a label can have."""
    growing, one = "0+10000x20", "1x20"
    lengths: dict[str, Iterable[str]] = {
        "hook": set(Hook) - {Hook.NET_DEV_QUEUE},
        "ip_family": Family,
    }
    for scope, interface in DEVICES:
        at = {"scope": scope, "interface": interface}
        for labels in sets(lengths):
            for suffix in ("sum", "count"):
                yield f"bigtcp_skb_length_bytes_{suffix}", at | labels, growing
            yield "bigtcp_big_skb_bytes_total", at | labels, growing
            for edge in (1500.0, 65536.0, 196608.0, "+Inf"):
                le = {"le": str(edge)}
                yield "bigtcp_skb_length_bytes_bucket", at | labels | le, "0+9000x20"
        for labels in sets(IP):
            yield "bigtcp_queued_big_skbs_total", at | labels, growing
        for labels in sets({"direction": ("rx", "tx")}):
            for counter in ("counted", "interface"):
                name = f"bigtcp_{counter}_bytes_total"
                yield name, labels | {"interface": interface}, "0+1e8x20"
    for name, possible in (
        # That both hold is more than can be: one state does at a time.
        ("bigtcp_verdict", IP | {"state": (State.PARTIAL,)}),
        ("bigtcp_finding", {"id": FINDING_IDS}),
        ("bigtcp_pods", IP | {"state": ("big", "legacy", "unknown")}),
        ("bigtcp_cilium_big_tcp_enabled", IP | {"source": ("configmap", "agent")}),
        ("bigtcp_cilium_max_size_bytes", IP | {"offload": ("gso", "gro")}),
        ("bigtcp_cilium_config_changed_timestamp_seconds", {}),
        ("bigtcp_skbs_unrecorded_total", {"reason": ("map_full",)}),
        ("bigtcp_source_up", {"source": ("probes", "links", "cilium", "configmap")}),
        ("bigtcp_probe_attached", {"hook": Hook}),
        ("bigtcp_build_info", {"version": ("1",), "kernel": ("6.18",)}),
        ("bigtcp_netperf_transactions_per_second", IP),
        (
            "bigtcp_netperf_latency_seconds",
            IP | {"statistic": ("min", "mean", "p50", "p90", "p99", "max")},
        ),
    ):
        for labels in sets(possible):
            yield name, labels, one


def series(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{','.join(f'{k}={json.dumps(v)}' for k, v in labels.items())}}}"


def test_fewer_than_100_series_of_a_node_and_few_of_a_cluster(tmp_path: Path) -> None:
    given = [
        {
            "series": series(
                name, {"job": "j", "instance": node, "node": node, **labels}
            ),
            "values": values,
        }
        for node in NODES
        for name, labels, values in everything()
    ]
    recorded = {rule["record"] for rule in rules("record")}

    def true(expr: str) -> dict[str, object]:
        return {
            "expr": expr,
            "eval_time": "15m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }

    names = 'count(count by (__name__) ({__name__=~"(node|job):.+"}))'
    nodes = 'count by (node) ({__name__=~"node:.+"})'
    case = {
        "rule_files": [str(file) for file in RULES],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [
                    true(f"{names} == bool {len(recorded)}"),
                    true(f"max({nodes}) < bool 100"),
                    true(f"min({nodes}) > bool 50"),
                    true(f"count({nodes}) == bool {len(NODES)}"),
                    # Those of a job do not grow with the nodes.
                    true('count({__name__=~"job:.+"}) == bool 3'),
                ],
            }
        ],
    }
    file = tmp_path / "series.yaml"
    file.write_text(json.dumps(case))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
