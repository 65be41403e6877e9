# SPDX-License-Identifier: Apache-2.0
"""Helm 3 and Helm 4, as the project builds them, and what they make of the chart."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import CACHE

CHART = Path(__file__).parent.parent.parent / "charts/bigtcp-agent"
VALUES = sorted(CHART.glob("ci/*-values.yaml"))
VERSIONS = ("helm3", "helm4")
_KUBERNETES = ("--kube-version", "1.34.4")  # of the cluster; a bare build knows none

Object = dict[str, Any]


def _keys_once(text: str) -> None:
    """Of a key that stands twice Helm takes the last; Kustomize refuses it."""
    nodes = list(yaml.compose_all(text, yaml.SafeLoader))
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"a key twice: {keys}"
            nodes += [value for _, value in node.value]


def run(version: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Of "helm3" or "helm4", whatever becomes of it."""
    return subprocess.run(
        [CACHE / "bin" / version, *argv], capture_output=True, text=True, check=False
    )


def template(*flags: str, version: str = "helm3", chart: Path = CHART) -> list[Object]:
    """The objects of a release called `try` in namespace `agents`."""
    argv = ("template", "try", str(chart), "--namespace=agents", *_KUBERNETES, *flags)
    done = run(version, *argv)
    assert done.returncode == 0, done.stderr
    _keys_once(done.stdout)
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def lint(*flags: str, version: str = "helm3") -> subprocess.CompletedProcess[str]:
    return run(version, "lint", "--strict", str(CHART), *_KUBERNETES, *flags)


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or of a kind and a name."""
    (found,) = (
        each
        for each in objects
        if each["kind"] == kind and name in ("", each["metadata"]["name"])
    )
    return found


def as_list(objects: list[Object]) -> Object:
    """All of them as one, for kubectl."""
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def container(pod_owner: Object) -> Object:
    """The first one's."""
    spec = pod_owner["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: Object = spec["template"]["spec"]["containers"][0]
    return found


def environment(pod_owner: Object) -> dict[str, str]:
    """Those of a container's variables that have a value, not a source."""
    env = container(pod_owner).get("env", [])
    return {each["name"]: each["value"] for each in env if "value" in each}
