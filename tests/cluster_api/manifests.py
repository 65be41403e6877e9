# SPDX-License-Identifier: Apache-2.0
"""Objects to create, as JSON."""

from agent.cluster.api import Json

NODE_CONFIGS = "ciliumnodeconfigs.cilium.io"


def pod(name: str, node: str) -> Json:
    containers = [{"name": "c", "image": "none"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": containers},
    }


def node_config(name: str, selector: Json, defaults: dict[str, str]) -> Json:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNodeConfig",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"nodeSelector": selector, "defaults": defaults},
    }


def definition() -> Json:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NODE_CONFIGS},
        "spec": {
            "group": "cilium.io",
            "scope": "Namespaced",
            "names": {"plural": "ciliumnodeconfigs", "kind": "CiliumNodeConfig"},
            "versions": [
                {
                    "name": "v2",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
