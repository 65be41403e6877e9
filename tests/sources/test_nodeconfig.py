# SPDX-License-Identifier: Apache-2.0
"""CiliumNodeConfigs are merged as Cilium's own build-config merges them."""

from typing import Any

import pytest

from agent.cluster.nodeconfig import NodeConfig, overrides, relevant, selects

LABELS = {"zone": "a", "disk": ""}


def expression(operator: object, *values: str, key: str = "zone") -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": None, "matchExpressions": None}, True),
        ({"matchLabels": {"zone": "a"}}, True),
        ({"matchLabels": {"zone": "a", "disk": "", "x": ""}}, False),
        ({"matchLabels": {"zone": "b"}}, False),
        ({"matchExpressions": [expression("In", "a", "b")]}, True),
        ({"matchExpressions": [expression("In", "b")]}, False),
        ({"matchExpressions": [expression("In", "", key="x")]}, False),
        ({"matchExpressions": [expression("NotIn", "b")]}, True),
        ({"matchExpressions": [expression("NotIn", "a")]}, False),
        ({"matchExpressions": [expression("NotIn", "a", key="x")]}, True),
        ({"matchExpressions": [expression("Exists", key="disk")]}, True),
        ({"matchExpressions": [expression("Exists", key="x")]}, False),
        ({"matchExpressions": [expression("DoesNotExist", key="x")]}, True),
        ({"matchExpressions": [expression("DoesNotExist", key="disk")]}, False),
        ({"matchLabels": {"zone": "b"}, "matchExpressions": []}, False),
        # What Kubernetes would not accept selects nothing.
        ({"matchExpressions": [expression("In")]}, False),
        ({"matchExpressions": [expression("Exists", "a")]}, False),
        ({"matchExpressions": [expression("Near", "a")]}, False),
        ({"matchExpressions": [{"key": "zone"}]}, False),
        ({"matchExpressions": ["zone"]}, False),
        ({"matchExpressions": [expression([])]}, False),
        ({"matchExpressions": [expression("Exists", key=[])]}, False),  # type: ignore[arg-type]
        ({"matchLabels": ["zone"]}, False),
    ],
)
def test_selectors(selector: dict[str, Any], *, selected: bool) -> None:
    assert selects(selector, LABELS) is selected


def test_the_last_name_wins() -> None:
    configs = [
        NodeConfig("b", {}, {"mtu": "2", "routing-mode": "tunnel"}),
        NodeConfig("a", {"matchLabels": {"zone": "a"}}, {"mtu": "1", "devices": "e0"}),
        NodeConfig("c", {"matchLabels": {"zone": "z"}}, {"mtu": "3"}),
    ]
    values, setters = overrides(configs, LABELS)
    assert values == {"mtu": "2", "devices": "e0", "routing-mode": "tunnel"}
    assert setters == {"mtu": "b", "devices": "a", "routing-mode": "b"}


def test_no_selector_selects_no_node() -> None:
    assert overrides([NodeConfig("a", None, {"mtu": "1"})], LABELS) == ({}, {})


@pytest.mark.parametrize("data", [None, [], "text", {"mtu": 1500, 7: "x", "other": ""}])
def test_what_is_no_value_of_ours(data: object) -> None:
    assert relevant(data) == {}
