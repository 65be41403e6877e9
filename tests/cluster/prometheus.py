# SPDX-License-Identifier: Apache-2.0
"""Prometheus on a node; it finds its targets through the Kubernetes API."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.lab.netns import wait_until
from tests.cluster.cluster import CACHE, Cluster
from tests.prometheus import Prometheus

Object = dict[str, Any]
_WANTED = "__meta_kubernetes_service_annotation_prometheus_io_scrape"
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"\d+(ms|[smhd])")
_RANGE = re.compile(r"\[[^\]]+\]")  # of a selector or of a subquery
_WAITS = ("for", "keep_firing_for")


def by_annotations(cluster: Cluster) -> list[Object]:
    """Scrape what the chart's services ask for by their annotations."""

    def relabel(source: str, target: str) -> Object:
        return {"source_labels": [source], "target_label": target}

    return [
        {
            "job_name": "kubernetes",
            "kubernetes_sd_configs": [
                {"role": "endpoints", "kubeconfig_file": str(cluster.kubeconfig)}
            ],
            "relabel_configs": [
                {
                    "source_labels": [_WANTED],
                    "regex": "true",
                    "action": "keep",
                },
                relabel("__meta_kubernetes_endpoint_node_name", "node"),
                relabel(
                    "__meta_kubernetes_service_label_app_kubernetes_io_name", "job"
                ),
                relabel("__meta_kubernetes_service_name", "service"),
            ],
        }
    ]


def hurried(groups: list[Object]) -> list[Object]:
    """The same rules with seconds for minutes: what they look back over and what they
    wait for, by one measure, for a test that scrapes each second.
    """

    def hurry(rule: Object) -> Object:
        expr = _RANGE.sub(lambda found: _shorter(found[0]), rule["expr"])
        waits = {key: _shorter(rule[key]) for key in _WAITS if key in rule}
        return rule | waits | {"expr": expr}

    return [
        group | {"rules": [hurry(rule) for rule in group["rules"]]} for group in groups
    ]


def _shorter(text: str) -> str:
    """All durations in it, divided by 60."""

    def cut(found: "re.Match[str]") -> str:
        number = int(found[0].removesuffix(found[1]))
        return f"{number * _MS[found[1]] // 60}ms"

    return _DURATION.sub(cut, text)


@contextlib.contextmanager
def prometheus(
    cluster: Cluster,
    folder: Path,
    scrape: list[Object],
    rules: list[Object] | None = None,
) -> Iterator[Prometheus]:
    """On node1, from where all nodes and pods are reached. `rules`: groups of them."""
    node = cluster.nodes[0]
    (folder / "rules.yml").write_text(json.dumps({"groups": rules or []}))
    config = {
        "global": {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "1s",
        },
        "rule_files": [f"{folder}/rules.yml"],
        "scrape_configs": scrape,
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    flags = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:9090",
    )
    process = node.start(str(CACHE / "bin/prometheus"), *flags)
    try:
        server = Prometheus(node)
        wait_until(server.up, "Prometheus to be ready")
        yield server
    finally:
        process.kill()
        process.wait()
