# SPDX-License-Identifier: Apache-2.0
"""A kernel that is locked down for confidentiality, as Talos' is with Secure Boot.

There is no way back but a reboot, so this runs last, in a virtual machine.
"""

import os
import subprocess
import sys

import pytest

from agent.kernel.probes import Probes
from agent.lab.netns import wait_until
from agent.snapshot.model import Family, Hook
from tests.kernel.frames import N, frame, ip_packet, send_frames
from tests.stand import quiet_pair, seen

SECURITY = "/sys/kernel/security"


@pytest.fixture(autouse=True)
def locked_down() -> None:
    if not os.listdir(SECURITY):
        subprocess.run(["mount", "-t", "securityfs", "none", SECURITY], check=True)
    with open(f"{SECURITY}/lockdown", "w") as level:
        level.write("confidentiality")


def the_reason_is_told() -> None:
    run = [sys.executable, "-m", "agent", "run"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "locked down for confidentiality" in done.stderr


def all_is_counted_as_ever() -> None:
    """Names, peers, VLAN tags and addresses of pods are read without the helper."""
    with (
        quiet_pair() as (client, server),
        Probes.load(list(Hook), pods_of=server.cookie) as probes,
    ):
        assert probes.failures == {}
        packet = ip_packet(Family.IPV4, 1000, "10.9.9.9")
        probes.set_pod_addresses({"10.9.9.9": 99})
        send_frames(client, [frame(Family.IPV4, packet, tags=1)] * N)

        def arrived() -> bool:
            got = seen(probes, server, Hook.NETIF_RECEIVE_SKB, Family.IPV4)
            return got.histogram.count == N

        wait_until(arrived, "the frames to arrive")
        sent = seen(probes, client, Hook.NET_DEV_START_XMIT, Family.IPV4)
        assert sent.histogram.bytes == N * 1000
        reading = probes.read()
        assert reading.pods_received[99, Family.IPV4].histogram.bytes == N * 1000
        (device,) = (
            device
            for at, device in reading.devices.items()
            if at.netns == client.cookie
        )
        assert (device.name, device.kind) == ("eth0", "veth")
        assert device.peer is not None
        assert device.peer.netns == server.cookie


# bpf_rdonly_cast() is new in 6.2.
test_without_the_helper = (
    the_reason_is_told if os.environ["BIGTCP_VM"] == "6.1" else all_is_counted_as_ever
)
