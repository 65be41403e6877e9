# SPDX-License-Identifier: Apache-2.0
"""What passes a hook and is no packet of the device is not counted."""

import socket

from agent.kernel.probes import Probes
from agent.lab.netns import pair
from agent.snapshot.model import Family, Hook
from tests.kernel.frames import N
from tests.stand import seen

GROUP, PORT = "239.1.1.1", 5000


def test_a_multicast_to_ourselves_is_not_received(probes: Probes) -> None:
    """The copy for listeners on this host comes up as from the device."""
    with pair() as stand:
        client = stand.client

        def opened() -> socket.socket:
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        with client.call(opened) as sender, client.call(opened) as listener:
            ours = socket.inet_aton("192.0.2.1")
            group = socket.inet_aton(GROUP) + ours
            listener.bind((GROUP, PORT))
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            listener.settimeout(10)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ours)
            for _ in range(N):
                sender.sendto(bytes(972), (GROUP, PORT))
                assert len(listener.recv(1 << 16)) == 972
        sent = seen(probes, client, Hook.NET_DEV_START_XMIT, Family.IPV4)
        got = seen(probes, client, Hook.NETIF_RECEIVE_SKB, Family.IPV4)
    thousand = sent.histogram.edges.index(1500)
    assert sent.histogram.slots[thousand] == N
    assert not got.histogram.slots[thousand]
