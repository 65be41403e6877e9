# SPDX-License-Identifier: Apache-2.0
"""BIG TCP pods: single pods, where the agents run with --max-pods."""

from grafana_foundation_sdk.builders import dashboard

from charts.dashboards.frame import frame, variable
from charts.dashboards.panels import Column, Say, lines, rows, spread
from charts.dashboards.queries import (
    FAMILIES,
    NODE,
    TARGET,
    eq,
    heatmap,
    over,
    rate,
    select,
)

LENGTH = "bigtcp_pod_skb_length_bytes"
NAMESPACE = 'namespace=~"$namespace"'
SHOWN = (NAMESPACE, 'pod=~"$pod"')
POD = "cluster, namespace, pod"
ONE_POD = "{{cluster}} {{namespace}}/{{pod}}"
DIRECTIONS = {"sent": "tx", "received": "rx"}


def pods() -> dashboard.Dashboard:
    """The dashboard."""
    found = frame(
        "bigtcp-pods",
        "BIG TCP pods",
        "Which pods send and receive big packets. Single pods need the agent's flag "
        "--max-pods, and a scrape that honours their labels.",
        "bigtcp_build_info",
        "bigtcp_cilium_config_changed_timestamp_seconds",
    )
    found.with_variable(variable("namespace", f"{LENGTH}_count", TARGET))
    found.with_variable(variable("pod", f"{LENGTH}_count", f"{TARGET},{NAMESPACE}"))
    found.with_row(dashboard.Row("Pods by size"))
    _sizes(found)
    found.with_row(dashboard.Row("Single pods"))
    _traffic(found)
    found.with_row(dashboard.Row("Length of packets"))
    for name, direction in DIRECTIONS.items():
        for version, family in FAMILIES.items():
            found.with_panel(
                spread(
                    Say(
                        f"{version} {name} by the pods",
                        "Packets a second by L3 length, of the pods chosen above. Only "
                        "BIG TCP allows more than 64 KiB.",
                        "bytes",
                    ),
                    heatmap(LENGTH, *_at(direction), eq("ip_family", family)),
                )
            )
    return found


def _at(direction: str) -> tuple[str, ...]:
    return (*SHOWN, eq("direction", direction))


def _rate(suffix: str, *matchers: str) -> str:
    return over("sum", POD, rate(f"{LENGTH}_{suffix}", *matchers))


def _share(*matchers: str) -> str:
    """Of the packets: of single pods the bytes above 64 KiB are not known."""
    small = _rate("bucket", *matchers, eq("le", "65536.0"))
    return f"1 - {small} / ({_rate('count', *matchers)} > 0)"


def _sizes(found: dashboard.Dashboard) -> None:
    for state, title, description in (
        (
            "legacy",
            "Pods at 64 KiB",
            "Made before BIG TCP: only a restart raises them. The ten worst nodes.",
        ),
        ("big", "Pods above 64 KiB", "The ten nodes with the most."),
    ):
        count = select("bigtcp_pods", eq("state", state))
        found.with_panel(
            lines(
                Say(title, description, "none", span=8),
                {
                    "{{cluster}} {{node}} {{ip_family}}": (
                        f"topk(10, {over('max', f'{NODE}, ip_family', count)})"
                    )
                },
            )
        )
    found.with_panel(
        lines(
            Say(
                "Pods without a name",
                "Above --max-pods: they stand together in pod (others).",
                "none",
                span=8,
            ),
            {"{{cluster}} {{node}}": over("max", NODE, select("bigtcp_pods_summed"))},
        )
    )


def _traffic(found: dashboard.Dashboard) -> None:
    for name, direction in DIRECTIONS.items():
        found.with_panel(
            lines(
                Say(
                    f"Bytes {name}",
                    f"The ten pods that have {name} the most.",
                    "Bps",
                ),
                {ONE_POD: f"topk(10, {_rate('sum', *_at(direction))})"},
            )
        )
    for name, direction in DIRECTIONS.items():
        found.with_panel(
            lines(
                Say(
                    f"Packets {name} above 64 KiB",
                    "Share of the packets, acknowledgements included, of the ten pods "
                    "where it is greatest.",
                    "percentunit",
                ),
                {ONE_POD: f"topk(10, {_share(*_at(direction))})"},
                most=1,
            )
        )
    columns = [
        Column(f"Bytes {name}", _rate("sum", *_at(direction)), {"unit": "Bps"})
        for name, direction in DIRECTIONS.items()
    ]
    columns += [
        Column(
            f"Above 64 KiB {version} {name}",
            _share(*_at(direction), eq("ip_family", family)),
            {"unit": "percentunit", "decimals": 1},
        )
        for name, direction in DIRECTIONS.items()
        for version, family in FAMILIES.items()
    ]
    found.with_panel(
        rows(
            Say(
                "Pods now",
                "Every pod that the agents tell apart. Above 64 KiB: share of the "
                "packets, acknowledgements included.",
                "none",
                span=24,
                height=9,
            ),
            {"cluster": "Cluster", "namespace": "Namespace", "pod": "Pod"},
            columns,
        )
    )
