# SPDX-License-Identifier: Apache-2.0
"""Prometheus on a node: it finds its targets through the Kubernetes API, by the
annotations that the chart gives its services.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.lab.netns import wait_until
from tests.chart.helm import CHART
from tests.cluster.cluster import CACHE, Cluster
from tests.prometheus import Prometheus

_WANTED = "__meta_kubernetes_service_annotation_prometheus_io_scrape"


def _rules(folder: Path) -> list[str]:
    """The chart's, but what alerts look back on are seconds, as the test is quick."""
    copies = []
    for file in sorted((CHART / "rules").glob("*.yaml")):
        text = file.read_text()
        if file.stem == "alerts":
            text = text.replace("m])", "s])")
        copy = folder / file.name
        copy.write_text(text)
        copies.append(str(copy))
    return copies


def _config(kubeconfig: Path, rules: list[str]) -> dict[str, Any]:
    def relabel(source: str, target: str) -> dict[str, Any]:
        return {"source_labels": [source], "target_label": target}

    discovered = {
        "job_name": "kubernetes",
        "kubernetes_sd_configs": [
            {"role": "endpoints", "kubeconfig_file": str(kubeconfig)}
        ],
        "relabel_configs": [
            {
                "source_labels": [_WANTED],
                "regex": "true",
                "action": "keep",
            },
            relabel("__meta_kubernetes_pod_node_name", "node"),
            relabel("__meta_kubernetes_service_label_app_kubernetes_io_name", "job"),
            relabel("__meta_kubernetes_service_name", "service"),
        ],
    }
    pace = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    return {"global": pace, "rule_files": rules, "scrape_configs": [discovered]}


@contextlib.contextmanager
def prometheus(cluster: Cluster, folder: Path) -> Iterator[Prometheus]:
    """On node1, from where all nodes and pods are reached."""
    node = cluster.nodes[0]
    config = _config(cluster.kubeconfig, _rules(folder))
    (folder / "prometheus.yml").write_text(json.dumps(config))
    flags = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:9090",
    )
    process = node.start(str(CACHE / "bin/prometheus"), *flags)
    try:
        server = Prometheus(node)
        wait_until(server.up, "Prometheus to be ready", 60)
        yield server
    finally:
        process.kill()
        process.wait()
