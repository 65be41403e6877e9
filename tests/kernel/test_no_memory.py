# SPDX-License-Identifier: Apache-2.0
"""Where the kernel has no memory for a new row, its skbs are counted all the same."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from agent.kernel.loader import Loader
from agent.kernel.probes import Probes
from agent.lab.netns import Namespace, namespaces, wait_until
from agent.snapshot.model import Family, Hook
from tests.kernel.frames import frame, ip_packet, packet_socket
from tests.stand import write_sysctl

SKBS = 11
DEVICES = 150  # more rows than the kernel has in stock
_ROOT = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cgroup() -> Iterator[Path]:
    """An empty one of the memory controller, of cgroup v1 or v2."""
    tree = _ROOT / "memory"
    if not tree.exists():
        tree = _ROOT
        assert "memory" in (tree / "cgroup.subtree_control").read_text().split()
    here = tree / f"bigtcp-no-memory-{os.getpid()}"
    here.mkdir()

    def gone() -> bool:
        with contextlib.suppress(OSError):
            here.rmdir()
        return not here.exists()

    try:
        yield here
    finally:
        wait_until(gone, "the cgroup to be empty")


def spend(cgroup: Path) -> None:
    """Allow it no more than it has."""
    limit = cgroup / "memory.max"
    if limit.exists():
        limit.write_text("0")
        return
    limit = cgroup / "memory.limit_in_bytes"
    usage = int((cgroup / "memory.usage_in_bytes").read_text())
    with contextlib.suppress(OSError):  # busy: what is used is in use
        while usage > 0:
            limit.write_text(str(usage))
            usage -= 4096


def send(namespace: Namespace) -> None:
    """So many skbs to each device, all from one CPU."""
    packet = frame(Family.IPV4, ip_packet(Family.IPV4, 100))

    def inside() -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # of this thread
        with packet_socket() as raw:
            for i in range(DEVICES * SKBS):
                raw.sendto(packet, (f"br{i % DEVICES}", 0))

    namespace.call(inside)


def without_memory() -> int:
    """Rows that were counted without any in the hash; 0 where memory was left."""
    with namespaces("memory") as (namespace,), cgroup() as group:
        write_sysctl(namespace, "ipv6/conf/default/disable_ipv6", "1")
        namespace.ip(
            *(f"link add br{i} type bridge mcast_snooping 0" for i in range(DEVICES)),
            *(f"link set br{i} up" for i in range(DEVICES)),
        )
        loader = Loader([Hook.NET_DEV_START_XMIT])
        loader.start()
        assert loader._child
        # While it compiles: the maps that it makes then are the cgroup's.
        (group / "cgroup.procs").write_text(str(loader._child.pid))
        with Probes.from_loader(loader) as probes:
            spend(group)
            send(namespace)
            reading = probes.read()
            keys, _ = probes._lengths.read()
        rows = {
            key.device.ifindex: row.lengths.histogram.count
            for key, row in reading.rows.items()
            if key.device.netns == namespace.cookie
        }
        # Others on this machine may have lost some, too.
        lost = reading.unrecorded["no_memory"]
        assert DEVICES * SKBS - lost <= sum(rows.values()) <= DEVICES * SKBS
        mine = keys[keys["netns"] == namespace.cookie]
        assert set(np.unique(mine["ifindex"])) <= rows.keys()
        # Who has a row has a device, and nobody else.
        devices = {at.ifindex for at in reading.devices if at.netns == namespace.cookie}
        assert devices == rows.keys()
        return len(rows) - len(mine)


def test_rows_without_memory_are_counted() -> None:
    """Memory that others free meanwhile may be enough for all rows."""
    assert any(without_memory() for _ in range(5))
