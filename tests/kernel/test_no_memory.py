# SPDX-License-Identifier: Apache-2.0
"""Where the kernel has no memory for a new row, its skbs are counted all the same."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from agent.kernel.probes import Probes
from agent.lab.netns import namespaces
from agent.snapshot.model import Family, Hook
from tests.kernel.test_counts import ethernet, ip_packet
from tests.stand import write_sysctl

SKBS = 101
DEVICES = 150  # more than the kernel has in stock
_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cgroup() -> Iterator[Path]:
    """One of the memory controller, of cgroup v1 or v2; we are in it until it ends."""
    tree = _ROOT / "memory"
    if not tree.exists():
        tree = _ROOT
        (tree / "cgroup.subtree_control").write_text("+memory")
    here = tree / f"bigtcp-no-memory-{os.getpid()}"
    here.mkdir()
    processes = here / "cgroup.procs"
    processes.write_text("0")
    try:
        yield here
    finally:
        (tree / "cgroup.procs").write_text("0")
        here.rmdir()


def spend(cgroup: Path) -> None:
    """Allow it no more than it has."""
    limit = cgroup / "memory.max"
    if limit.exists():
        limit.write_text("0")
        return
    limit = cgroup / "memory.limit_in_bytes"
    usage = int((cgroup / "memory.usage_in_bytes").read_text())
    while usage > 0:
        with contextlib.suppress(OSError):  # busy: what is used is in use
            limit.write_text(str(usage - 4096))
            usage -= 4096
            continue
        break


def test_rows_without_memory_are_counted() -> None:
    with namespaces("memory") as (namespace,):
        write_sysctl(namespace, "ipv6/conf/default/disable_ipv6", "1")
        namespace.ip(
            *(f"link add br{i} type bridge mcast_snooping 0" for i in range(DEVICES)),
            *(f"link set br{i} up" for i in range(DEVICES)),
        )
        frame = ethernet(Family.IPV4, ip_packet(Family.IPV4, 100))

        def send() -> None:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                for i in range(DEVICES * SKBS):
                    raw.sendto(frame, (f"br{i % DEVICES}", 0))

        with cgroup() as group:
            probes = Probes.load([Hook.NET_DEV_START_XMIT])
            (group.parent / "cgroup.procs").write_text("0")
            spend(group)
            with probes:
                namespace.call(send)
                reading = probes.read()
                keys, _ = probes._lengths.read()
        rows = [
            row.lengths.histogram.count
            for key, row in reading.rows.items()
            if key.device.netns == namespace.cookie
        ]
        with_memory = int((keys["netns"] == namespace.cookie).sum())
        # Of those that share a slot of the fast lane, one can be on it.
        assert with_memory < len(rows)
        assert sum(rows) + reading.unrecorded["no_memory"] == DEVICES * SKBS
