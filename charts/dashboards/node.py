# SPDX-License-Identifier: Apache-2.0
"""BIG TCP node: everything one node says, from its own series."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from charts.dashboards.frame import frame, variable
from charts.dashboards.itself import itself
from charts.dashboards.panels import (
    GREEN,
    ORANGE,
    RED,
    VERDICTS,
    Column,
    Say,
    colored,
    lines,
    mapping,
    rows,
    spread,
    timeline,
)
from charts.dashboards.queries import (
    FAMILIES,
    HOOKS,
    INTERFACE,
    NODE,
    TARGET,
    eq,
    heatmap,
    node_share,
    over,
    rate,
    select,
    verdict,
    whole,
)

SHOWN = (eq("scope", "$scope"), INTERFACE)
IP = 'ip_family=~"ipv4|ipv6"'
MARKS = [(65536, ORANGE), (196608, GREEN)]


def node() -> dashboard.Dashboard:
    """The dashboard."""
    found = frame(
        "bigtcp-node",
        "BIG TCP node",
        "How long the packets of a node are, and where they are cut.",
        "bigtcp_build_info",
        "bigtcp_cilium_config_changed_timestamp_seconds",
    )
    found.with_variable(
        dashboard.CustomVariable("scope")
        .label("Scope")
        .description("The node's own devices, or those inside its pods.")
        .values("node,pods")
        .current(model.VariableOption(True, "node", "node"))
    )
    found.with_variable(variable("interface", "bigtcp_skb_length_bytes_count", TARGET))
    found.with_row(dashboard.Row("State"))
    _state(found)
    found.with_row(dashboard.Row("Length of packets"))
    _lengths(found)
    found.with_row(dashboard.Row("Where they are cut"))
    _cuts(found)
    found.with_row(dashboard.Row("The agent itself"))
    itself(found)
    return found


def _state(found: dashboard.Dashboard) -> None:
    found.with_panel(
        timeline(
            Say(
                "Verdict",
                "What `bigtcp-agent check` says, by IP family.",
                "none",
                height=6,
            ),
            {
                "{{cluster}} {{node}} {{ip_family}}": verdict(
                    "bigtcp_verdict", f"{NODE}, ip_family"
                )
            },
            VERDICTS,
        )
    )
    found.with_panel(
        timeline(
            Say(
                "Findings",
                "What is wrong, while it is; the README lists them. Without a row "
                "nothing is.",
                "none",
                height=6,
            ),
            {
                "{{cluster}} {{node}} {{id}}": over(
                    "max", f"{NODE}, id", f"{select('bigtcp_finding')} == 1"
                )
            },
            mapping({"1": ("found", RED)}),
        )
    )
    for name, hook in HOOKS.items():
        found.with_panel(
            lines(
                Say(
                    f"Bytes {name} above 64 KiB",
                    f"Share of the bytes {name} in packets that only BIG TCP allows, "
                    "by device of the scope.",
                    "percentunit",
                ),
                {
                    "{{cluster}} {{node}} {{interface}} {{ip_family}}": node_share(
                        f"{NODE}, interface, ip_family",
                        eq("hook", hook),
                        *SHOWN,
                        IP,
                    )
                },
                most=1,
            )
        )


def _lengths(found: dashboard.Dashboard) -> None:
    for name, hook in HOOKS.items():
        for version, family in FAMILIES.items():
            found.with_panel(
                spread(
                    Say(
                        f"{version} {name}",
                        f"Packets a second by L3 length at {hook}, of the scope and "
                        "interfaces chosen above. Above 64 KiB: only with BIG TCP.",
                        "bytes",
                        height=9,
                    ),
                    heatmap(
                        "bigtcp_skb_length_bytes",
                        eq("hook", hook),
                        *SHOWN,
                        eq("ip_family", family),
                    ),
                )
            )
    by = f"{NODE}, ip_family"

    def at(metric: str, hook: str) -> str:
        return over("sum", by, rate(metric, eq("hook", hook), *SHOWN, IP))

    found.with_panel(
        lines(
            Say(
                "Wire packets per packet in the stack",
                "How many packets on the wire one skb stands for: what the stack is "
                "spared.",
                "none",
            ),
            {
                f"{{{{cluster}}}} {{{{node}}}} {name} {{{{ip_family}}}}": (
                    at("bigtcp_skb_segments_total", hook)
                    + " / "
                    + at("bigtcp_skb_length_bytes_count", hook)
                )
                for name, hook in HOOKS.items()
            },
        )
    )
    longest = "bigtcp_skb_length_max_bytes"
    found.with_panel(
        lines(
            Say(
                "Longest packet",
                "Longest L3 length since the agent started or the device came. Dashed: "
                "64 KiB and Cilium's 192 KiB.",
                "bytes",
            ),
            {
                f"{{{{cluster}}}} {{{{node}}}} {name} {{{{ip_family}}}}": over(
                    "max", by, select(longest, eq("hook", hook), *SHOWN, IP)
                )
                for name, hook in HOOKS.items()
            },
            marks=MARKS,
        )
    )


def _cuts(found: dashboard.Dashboard) -> None:
    by = f"{NODE}, interface, ip_family"
    queued = over("sum", by, rate("bigtcp_queued_big_skbs_total", *SHOWN))
    left = whole(by, *SHOWN, IP)
    found.with_panel(
        lines(
            Say(
                "Packets above 64 KiB: queued, and left whole",
                "Before and after software segmentation, by device. Where fewer leave "
                "than are queued, the device cuts the others: slower than BIG TCP off.",
                "pps",
            ),
            {
                "{{cluster}} {{node}} {{interface}} {{ip_family}} queued": queued,
                "{{cluster}} {{node}} {{interface}} {{ip_family}} left whole": left,
            },
        )
    )
    found.with_panel(
        lines(
            Say(
                "Cut in software",
                "Share of the queued packets above 64 KiB that left the device in "
                "pieces.",
                "percentunit",
            ),
            {
                "{{cluster}} {{node}} {{interface}} {{ip_family}}": (
                    f"clamp_min(1 - ({left}) / ({queued} > 0), 0)"
                )
            },
            most=1,
        )
    )
    size = [(None, ORANGE), (65537, GREEN)]
    of = f"{NODE}, interface"
    columns = [
        Column(
            f"{offload.upper()} {name}",
            over("max", of, select(metric, INTERFACE, eq("ip_family", family))),
            {"unit": "bytes", **colored(size)},
        )
        for offload in ("gso", "gro")
        for metric in (f"bigtcp_device_{offload}_max_size_bytes",)
        for name, family in FAMILIES.items()
    ]
    driver = select("bigtcp_device_tso_max_size_bytes", INTERFACE)
    columns.append(
        Column(
            "TSO, by the driver",
            over("max", of, driver),
            {"unit": "bytes", **colored(size)},
        )
    )
    labels = {"cluster": "Cluster", "node": "Node", "interface": "Interface"}
    found.with_panel(
        rows(
            Say(
                "Sizes of the devices",
                "Longest packet that a device sends (GSO) and builds (GRO), by family, "
                "and what its driver allows.",
                "bytes",
                span=24,
            ),
            labels | {"instance": "Instance", "job": "Job"},
            columns,
        )
    )
