# SPDX-License-Identifier: Apache-2.0
"""Maps are read and written through open fds by a thread without any capability."""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from agent.kernel import libbpf
from agent.kernel.probes import Probes
from agent.lab.netns import wait_until
from agent.privileges import drop_capabilities
from agent.snapshot.model import Family, Hook
from tests.kernel.frames import N, frame, ip_packet, send_frames
from tests.stand import quiet_pair

UNPRIVILEGED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
# 1 cannot be undone, so this is for a virtual machine, and 1 comes last.
SETTINGS = ["0", "2", "1"] if "BIGTCP_VM" in os.environ else ["as it is"]
T = TypeVar("T")
Call = Callable[[Callable[[], T]], T]


@contextlib.contextmanager
def thread_without_capabilities() -> Iterator[ThreadPoolExecutor]:
    """Capabilities are of a thread: the others keep theirs."""
    with ThreadPoolExecutor(1, initializer=drop_capabilities) as pool:
        status = pool.submit(Path("/proc/thread-self/status").read_text).result()
        held = [line for line in status.splitlines() if line.startswith("Cap")]
        assert len(held) == 5
        assert all(int(line.split()[1], 16) == 0 for line in held), held
        assert "NoNewPrivs:\t1" in status
        yield pool


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_probes_need_no_capability_once_they_are_attached(setting: str) -> None:
    if setting in ("0", "1", "2"):
        UNPRIVILEGED.write_text(setting)
    to_pod = frame(Family.IPV4, ip_packet(Family.IPV4, 1000, "10.9.9.9"))
    with (
        quiet_pair() as (client, server),
        Probes.load(list(Hook), pods_of=server.cookie) as probes,
        thread_without_capabilities() as pool,
    ):
        if UNPRIVILEGED.read_text().strip() != "0":
            with pytest.raises(PermissionError):
                pool.submit(libbpf.create_map).result()

        def received() -> dict[int, int]:
            reading = pool.submit(probes.read).result()
            return {
                ifindex: lengths.histogram.count
                for (ifindex, _), lengths in reading.pods_received.items()
            }

        def tell(addresses: dict[str, int]) -> None:
            assert pool.submit(probes.set_pod_addresses, addresses).result() == 0

        def rows_of_client() -> set[Hook]:
            rows = pool.submit(probes.read).result().rows
            return {key.hook for key in rows if key.device.netns == client.cookie}

        tell({"10.9.9.9": 99})  # add
        send_frames(client, [to_pod] * N)
        wait_until(lambda: received() == {99: N}, "the packets in the pod's row")
        assert rows_of_client() == {Hook.NET_DEV_START_XMIT}
        tell({"10.9.9.9": 98})  # change
        send_frames(client, [to_pod] * 2 * N)
        wait_until(lambda: received() == {98: 2 * N}, "the packets in another row")
        tell({})  # delete
        send_frames(client, [to_pod] * N)
        assert received() == {}

        reading = pool.submit(probes.read).result()
        assert reading.unrecorded["recursion"] == 0  # of the programs, not of a map
        keys = [key for key in reading.rows if key.device.netns == client.cookie]
        assert keys
        pool.submit(probes.forget, keys, {key.device for key in keys}).result()
        (device,) = {key.device for key in keys}
        # Not as part of forget(): a row that a CPU still keeps keeps its device.
        for table in probes._devices.values():
            pool.submit(
                table.remove, netns=device.netns, ifindex=device.ifindex
            ).result()
        for table in (probes._lengths, *probes._devices.values()):
            on_the_map, _ = table.read()
            assert client.cookie not in on_the_map["netns"].tolist()
        assert rows_of_client() == set()
