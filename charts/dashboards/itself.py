# SPDX-License-Identifier: Apache-2.0
"""The row of the agent itself: may its figures be trusted, and what does it cost?"""

from grafana_foundation_sdk.builders import dashboard

from charts.dashboards.panels import GREEN, ORANGE, Say, lines, mapping, timeline
from charts.dashboards.queries import INTERFACE, NODE, over, rate, select


def itself(found: dashboard.Dashboard) -> None:
    """Add its panels."""
    found.with_panel(
        lines(
            Say(
                "Coverage",
                "Bytes counted by the agent over bytes counted by the device. Between "
                "the dashed lines all is well: a NIC counts more headers.",
                "percentunit",
            ),
            {
                "{{cluster}} {{node}} {{interface}} {{direction}}": (
                    rate("bigtcp_counted_bytes_total", INTERFACE)
                    + " / "
                    + rate("bigtcp_interface_bytes_total", INTERFACE)
                )
            },
            marks=[(0.8, ORANGE), (1.2, ORANGE)],
        )
    )
    found.with_panel(
        lines(
            Say(
                "Packets in no histogram",
                "By reason, such as a map that was full or busy; the README has all. "
                "What has no_address is in its device's, and in no pod's.",
                "pps",
            ),
            {
                "{{cluster}} {{node}} {{reason}}": over(
                    "sum", f"{NODE}, reason", rate("bigtcp_skbs_unrecorded_total")
                )
            },
        )
    )
    yes_no = mapping({"0": ("no", ORANGE), "1": ("yes", GREEN)})
    found.with_panel(
        timeline(
            Say(
                "Hooks attached, sources up",
                "A source that is not there, such as Cilium on a plain machine, is not "
                "up.",
                "none",
                height=10,
            ),
            {
                "{{cluster}} {{node}} hook {{hook}}": select("bigtcp_probe_attached"),
                "{{cluster}} {{node}} source {{source}}": select("bigtcp_source_up"),
            },
            yes_no,
        )
    )
    found.with_panel(
        lines(
            Say(
                "Age of what the sources said",
                "Time since a source last answered: until it does again the agent goes "
                "by that.",
                "s",
                height=10,
            ),
            {
                "{{cluster}} {{node}} {{source}}": "time() - "
                + select("bigtcp_source_answered_timestamp_seconds")
            },
        )
    )
    for title, description, unit, expr in (
        (
            "CPU",
            "Seconds of CPU a second that the agent takes, without its hooks.",
            "percentunit",
            rate("process_cpu_seconds_total"),
        ),
        (
            "Memory",
            "Resident memory of the agent.",
            "bytes",
            select("process_resident_memory_bytes"),
        ),
        (
            "Time of a scrape",
            "How long Prometheus waits for an answer.",
            "s",
            select("scrape_duration_seconds"),
        ),
        (
            "Series",
            "Series in an answer.",
            "none",
            select("scrape_samples_scraped"),
        ),
    ):
        found.with_panel(
            lines(
                Say(title, description, unit, span=6),
                {
                    "{{cluster}} {{node}}": (
                        f"{expr} and on ({NODE}) {select('bigtcp_build_info')}"
                    )
                },
            )
        )
