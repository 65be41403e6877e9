# SPDX-License-Identifier: Apache-2.0
"""CiliumNodeConfigs: how Cilium merges them into its ConfigMap for one node.

It mirrors ResolveConfigurations and readNodeConfigs of Cilium's
pkg/option/resolver/resolver.go with the sources that `cilium-dbg build-config`
has by default: the ConfigMap, then the node configs of its namespace. A chart
with other `configSources`, or with keys that must not be overridden, differs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_MAX_VALUE = 16384
# The keys that decide about BIG TCP, or about what it depends on.
KEYS = frozenset(
    {
        "auto-direct-node-routes",
        "bpf-lb-acceleration",
        "bpf-lb-dsr-dispatch",
        "bpf-lb-mode",
        "cni-chaining-mode",
        "datapath-mode",
        "devices",
        "enable-bandwidth-manager",
        "enable-bpf-masquerade",
        "enable-egress-gateway",
        "enable-endpoint-routes",
        "enable-host-legacy-routing",
        "enable-ip-masq-agent",
        "enable-ipsec",
        "enable-ipv4",
        "enable-ipv4-big-tcp",
        "enable-ipv4-egress-gateway",
        "enable-ipv4-masquerade",
        "enable-ipv6",
        "enable-ipv6-big-tcp",
        "enable-ipv6-masquerade",
        "enable-tcx",
        "enable-tunnel-big-tcp",
        "enable-wireguard",
        "enable-ztunnel",
        "encrypt-node",
        "force-device-detection",
        "ipv4-native-routing-cidr",
        "ipv6-native-routing-cidr",
        "kube-proxy-replacement",
        "mtu",
        "routing-mode",
        "tunnel",
        "tunnel-protocol",
    }
)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A CiliumNodeConfig: `defaults` for the nodes that `selector` selects.

    `selector` is a metav1.LabelSelector as JSON; None selects no node, an empty
    one every node.
    """

    name: str
    selector: Mapping[str, Any] | None
    defaults: Mapping[str, str]


def relevant(data: object) -> dict[str, str]:
    """Of a ConfigMap's data, or a node config's defaults, the KEYS; OSError where the
    value of one is longer than anybody's.
    """
    if not isinstance(data, dict):
        return {}
    values = {
        key: value
        for key, value in sorted(data.items(), key=str)
        if key in KEYS and isinstance(value, str)
    }
    for key, value in values.items():
        if len(value) > _MAX_VALUE:
            raise OSError(
                f"the value of {key} is longer than {_MAX_VALUE:,} characters"
            )
    return values


def overrides(
    node_configs: Iterable[NodeConfig], labels: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """What they set on a node with these labels, and which of them set each key.

    They are applied in the order of their names: the last one wins.
    """
    values: dict[str, str] = {}
    setters: dict[str, str] = {}
    for config in sorted(node_configs, key=lambda config: config.name):
        if config.selector is not None and selects(config.selector, labels):
            values.update(config.defaults)
            setters.update(dict.fromkeys(config.defaults, config.name))
    return values, setters


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """metav1.LabelSelectorAsSelector, then Matches; all requirements must hold.

    A selector that Kubernetes would not accept selects nothing.
    """
    try:
        return all(
            labels.get(key) == value
            for key, value in (selector.get("matchLabels") or {}).items()
        ) and all(
            _meets(requirement, labels)
            for requirement in selector.get("matchExpressions") or ()
        )
    except (TypeError, AttributeError, KeyError):
        return False


def _meets(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = requirement["key"], requirement["operator"]
    values = requirement.get("values") or []
    if operator in ("In", "NotIn") and values:
        # A node without the label is not in, so NotIn holds.
        return (labels.get(key) in values) is (operator == "In")
    if operator in ("Exists", "DoesNotExist") and not values:
        return (key in labels) is (operator == "Exists")
    return False
