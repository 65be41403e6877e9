# SPDX-License-Identifier: Apache-2.0
"""Wrong with the agent's own counting."""

from collections.abc import Iterator

from agent.snapshot.evidence import FAMILIES, Evidence
from agent.snapshot.findings.finding import Finding, Severity

# A burst of new devices may find the kernel's stock of memory empty for a moment.
_TOLERATED_SHARE = 0.01


def not_counted(evidence: Evidence) -> Iterator[Finding]:
    """C25: packets, or whole devices, that find no row in the agent's maps."""
    snapshot = evidence.snapshot
    recent = snapshot.recent
    rows = snapshot.maps.get("lengths")
    full = rows is not None and rows.used >= rows.limit
    lost = recent.unrecorded.get("map_full", 0)
    why = "a device or pod without a row is missing from verdict and metrics"
    if lost or full:
        limit = f", which has room for {rows.limit:,} rows" if rows else ""
        yield Finding(
            "C25",
            Severity.WARNING,
            FAMILIES,
            f"the agent's map of counters is full{limit}; {lost:,} packets in "
            f"{recent.seconds:.0f} s were not counted",
            why,
            "restart the agent, which begins with an empty map; if it fills again, "
            "report that with the output of this: bigtcp-agent check -o json",
        )
    lost = recent.unrecorded.get("no_memory", 0)
    counted = sum(lengths.histogram.count for lengths in recent.rows.values())
    if lost > _TOLERATED_SHARE * counted:
        yield Finding(
            "C25",
            Severity.WARNING,
            FAMILIES,
            f"the kernel had no memory for new rows: {lost:,} packets in "
            f"{recent.seconds:.0f} s were not counted, {counted:,} were",
            why,
            "raise the memory limit of the agent's container (resources.limits.memory "
            "in the chart), or free memory on the node",
        )
