# SPDX-License-Identifier: Apache-2.0
"""The row of netperf: results of the chart's job, and what BIG TCP brings."""

from grafana_foundation_sdk.builders import dashboard

from charts.dashboards.panels import GREEN, RED, Column, Say, colored, lines, rows
from charts.dashboards.queries import netperf_with, over, select


def netperf(found: dashboard.Dashboard) -> None:
    """Add its panels."""
    result = select("node:bigtcp_netperf_transactions_per_second:max")
    latency = select(
        "node:bigtcp_netperf_latency_seconds:max", 'statistic=~"p50|p90|p99"'
    )
    found.with_panel(
        lines(
            Say(
                "Transactions per second",
                "netperf TCP_RR of the chart's netperf job, with BIG TCP on or off: a "
                "few points a run.",
                "ops",
                span=8,
            ),
            {
                "{{cluster}} {{ip_family}} {{big_tcp}}": over(
                    "max", "cluster, ip_family, big_tcp", result
                )
            },
            points=True,
        )
    )
    found.with_panel(
        lines(
            Say("Latency", "Of a transaction, in the same runs.", "s", span=8),
            {
                "{{cluster}} {{ip_family}} {{statistic}}": over(
                    "max", "cluster, ip_family, statistic", latency
                )
            },
            points=True,
        )
    )
    off, on = netperf_with("off"), netperf_with("on")
    gain = [(None, RED), (0, GREEN)]
    found.with_panel(
        rows(
            Say(
                "BIG TCP off and on",
                "Median of the runs in the time shown, by what Cilium had applied on "
                "the client's node when they ran.",
                "ops",
                span=8,
            ),
            {"cluster": "Cluster", "ip_family": "IP family"},
            [
                Column("Off", off),
                Column("On", on),
                Column(
                    "Difference",
                    f"{on} / {off} - 1",
                    {"unit": "percentunit", "decimals": 1, **colored(gain)},
                ),
            ],
        )
    )
