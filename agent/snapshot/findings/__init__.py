# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with BIG TCP, as users have reported it: one function each. Pure.

A function looks at the evidence and tells what it found: never without having
seen it. Ids are for alerts and documents and keep their meaning.
"""

from agent.snapshot.findings.configuration import (
    dispatched_by_tunnel,
    encrypted,
    kernel_too_old,
    mute,
    not_effective,
    not_restarted,
    prerequisites,
    tunnel_limits,
)
from agent.snapshot.findings.counters import not_counted
from agent.snapshot.findings.finding import Find
from agent.snapshot.findings.sizes import (
    device_limits,
    drift,
    mixed_datapath,
    pods_to_restart,
)
from agent.snapshot.findings.traffic import (
    not_merged,
    nothing_big,
    software_segmentation,
    too_big_to_forward,
)

FINDINGS: tuple[Find, ...] = (
    mute,
    kernel_too_old,
    not_effective,
    device_limits,
    prerequisites,
    pods_to_restart,
    drift,
    software_segmentation,
    tunnel_limits,
    dispatched_by_tunnel,
    not_restarted,
    too_big_to_forward,
    nothing_big,
    not_merged,
    encrypted,
    mixed_datapath,
    not_counted,
)

# Every id that a function here can tell.
FINDING_IDS = tuple(
    f"C{number:02}" for number in (*range(1, 11), 12, 13, 14, 15, 18, 19, 22, 25)
)
