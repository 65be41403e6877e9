# SPDX-License-Identifier: Apache-2.0
"""BIG TCP overview: all nodes of a cluster, however many."""

from grafana_foundation_sdk.builders import dashboard

from agent.snapshot.verdict import State
from charts.dashboards.frame import frame
from charts.dashboards.netperf import netperf
from charts.dashboards.panels import (
    GREEN,
    ORANGE,
    RED,
    STATE_COLORS,
    VERDICTS,
    YELLOW,
    Column,
    Say,
    colored,
    lines,
    mapping,
    number,
    rows,
)
from charts.dashboards.queries import (
    FAMILIES,
    NODE,
    SENT,
    eq,
    over,
    recorded_share,
    select,
    verdict,
)
from charts.dashboards.words import FINDINGS

VERDICT = "node:bigtcp_verdict:max"
PODS = "node:bigtcp_pods:sum"
SIZE = "node:bigtcp_cilium_max_size_bytes:max"
AT_NODE = (eq("hook", SENT), eq("scope", "node"))
LEGACY, BIG = "<= 65536", "> 65536"


def overview() -> dashboard.Dashboard:
    """The dashboard."""
    found = frame(
        "bigtcp-overview",
        "BIG TCP overview",
        "Is BIG TCP really on, on every node? Reads the recording rules of the chart.",
        VERDICT,
        "node:bigtcp_cilium_config_changed_timestamp_seconds:max",
    )
    found.with_row(dashboard.Row("Now"))
    _now(found)
    found.with_row(dashboard.Row("Verdict"))
    _verdicts(found)
    found.with_row(dashboard.Row("Big packets"))
    _big(found)
    found.with_row(dashboard.Row("Still at 64 KiB"))
    _left_behind(found)
    found.with_row(dashboard.Row("netperf"))
    netperf(found)
    return found


def _nodes(*matchers: str) -> str:
    """How many have such a verdict."""
    return f"count({over('count', NODE, select(VERDICT, *matchers))}) or vector(0)"


def _applied(family: str) -> str:
    return select(SIZE, eq("ip_family", family), eq("offload", "gso"))


def _now(found: dashboard.Dashboard) -> None:
    def tile(title: str, description: str) -> Say:
        return Say(title, description, "none", span=4, height=4)

    found.with_panel(
        number(
            tile("Nodes", "Nodes whose agent answers."),
            _nodes(),
            [(None, "blue")],
        )
    )
    for name, family in FAMILIES.items():
        found.with_panel(
            number(
                tile(
                    f"Active, {name}",
                    f"Nodes where {name} BIG TCP is applied and big packets cross.",
                ),
                _nodes(eq("ip_family", family), eq("state", State.ACTIVE)),
                [(None, GREEN)],
            )
        )
    found.with_panel(
        number(
            tile(
                "Slower than off",
                "Nodes where big packets are cut in software or refused on their way.",
            ),
            _nodes('state=~"segmented|dropped"'),
            [(None, GREEN), (1, RED)],
        )
    )
    found.with_panel(
        number(
            tile("Refused", "Nodes where BIG TCP is wanted and not applied."),
            _nodes(eq("state", State.REFUSED)),
            [(None, GREEN), (1, ORANGE)],
        )
    )
    found.with_panel(
        number(
            tile(
                "Partial",
                "Nodes with devices or pods that are still at 64 KiB, though BIG TCP "
                "is applied.",
            ),
            _nodes(eq("state", State.PARTIAL)),
            [(None, GREEN), (1, YELLOW)],
        )
    )


def _verdicts(found: dashboard.Dashboard) -> None:
    size = [(None, ORANGE), (65537, GREEN)]
    columns = [
        Column(
            f"Verdict {name}",
            verdict(VERDICT, NODE, eq("ip_family", family)),
            {"mappings": [VERDICTS], "custom.cellOptions": {"type": "color-text"}},
        )
        for name, family in FAMILIES.items()
    ]
    columns += [
        Column(
            f"Above 64 KiB {name}",
            recorded_share(NODE, *AT_NODE, eq("ip_family", family)),
            {"unit": "percentunit", "decimals": 1},
        )
        for name, family in FAMILIES.items()
    ]
    columns += [
        Column(
            f"Applied {name}",
            over("max", NODE, _applied(family)),
            {"unit": "bytes", **colored(size)},
        )
        for name, family in FAMILIES.items()
    ]
    columns.append(
        Column(
            "Pods at 64 KiB",
            over("max", NODE, select(PODS, eq("state", "legacy"))),
            {"unit": "none"},
        )
    )
    # All that a row is known by: two clusters may have a node of one name, and the
    # heatmaps there are sums.
    row = {"cluster": "Cluster", "node": "Node", "instance": "Instance", "job": "Job"}
    at = "".join(
        f"&var-{label}=${{__data.fields.{column}}}" for label, column in row.items()
    )
    link = {
        "title": "BIG TCP node",
        "url": f"/d/bigtcp-node?var-datasource=${{datasource}}{at}"
        "&${__url_time_range}",
    }
    found.with_panel(
        rows(
            Say(
                "Verdict per node",
                "What `bigtcp-agent check` says on each node. Above 64 KiB: share of "
                "the bytes that its devices sent in the last 5 minutes. Applied: what "
                "Cilium set.",
                "none",
                span=24,
                height=9,
            ),
            row,
            columns,
            {"Node": {"links": [link]}},
        )
    )
    colors = {state.value: STATE_COLORS[state] for state in State}
    for name, family in FAMILIES.items():
        found.with_panel(
            lines(
                Say(
                    f"Nodes by verdict, {name}",
                    "More than one colour: the nodes differ, by kernel, NIC, node "
                    "configuration or traffic.",
                    "none",
                ),
                {
                    "{{state}}": over(
                        "count", "state", select(VERDICT, eq("ip_family", family))
                    )
                },
                stacked=True,
                colors=colors,
            )
        )


def _big(found: dashboard.Dashboard) -> None:
    found.with_panel(
        lines(
            Say(
                "Bytes above 64 KiB",
                "Share of the bytes sent by the nodes' devices in packets that only "
                "BIG TCP allows.",
                "percentunit",
            ),
            {
                "{{cluster}} {{ip_family}}": recorded_share(
                    "cluster, ip_family", *AT_NODE
                )
            },
            most=1,
        )
    )
    by = f"{NODE}, ip_family"
    busy = over("sum", by, select("node:bigtcp_skb_length_bytes_sum:rate5m", *AT_NODE))
    found.with_panel(
        lines(
            Say(
                "Nodes with the smallest share",
                "The same for the ten nodes where it is least, of those that send "
                "more than 1 MB/s.",
                "percentunit",
            ),
            {
                "{{cluster}} {{node}} {{ip_family}}": (
                    f"bottomk(10, {recorded_share(by, *AT_NODE)} and {busy} > 1e6)"
                )
            },
            most=1,
        )
    )


def _left_behind(found: dashboard.Dashboard) -> None:
    found.with_panel(
        lines(
            Say(
                "Nodes",
                "Nodes by what Cilium has applied. At 64 KiB: off, refused or a device "
                "that cannot.",
                "none",
                span=8,
            ),
            {
                f"{name} {text}": f"count({_applied(family)} {size}) or vector(0)"
                for name, family in FAMILIES.items()
                for text, size in (("at 64 KiB", LEGACY), ("above", BIG))
            },
        )
    )
    found.with_panel(
        lines(
            Say(
                "Pods",
                "Pods by the size of their devices. Legacy ones are at 64 KiB until "
                "they are restarted.",
                "none",
                span=8,
            ),
            {"{{ip_family}} {{state}}": over("sum", "ip_family, state", select(PODS))},
        )
    )
    found.with_panel(
        rows(
            Say(
                "Findings",
                "What `bigtcp-agent check` finds, and on how many nodes.",
                "none",
                span=8,
            ),
            {"id": "Finding"},
            [Column("Nodes", f"count by (id) ({select('node:bigtcp_finding:max')})")],
            {
                "Finding": {
                    "mappings": [
                        mapping(
                            {
                                number: (f"{number} {what}", None)
                                for number, what in FINDINGS.items()
                            }
                        )
                    ]
                }
            },
        )
    )
