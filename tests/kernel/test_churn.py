# SPDX-License-Identifier: Apache-2.0
"""Namespaces that come and go: nothing grows, nothing is lost."""

import contextlib

from agent.kernel.links import Rtnetlink, own_netns_cookie
from agent.kernel.probes import Probes
from agent.lab.netns import namespaces, veth, wait_until
from agent.snapshot.collector import GRACE_SECONDS, Collector
from agent.snapshot.model import Family, Hook, Scope
from tests.kernel.frames import N, frame, ip_packet, send_frames
from tests.stand import write_sysctl

BATCHES, PODS = 10, 50


def lxc(rtnetlink: Rtnetlink) -> list[str]:
    return [link.name for link in rtnetlink.links() if link.name.startswith("lxc")]


def test_500_pods_come_and_go(probes: Probes) -> None:
    now = 0.0
    packet = frame(Family.IPV4, ip_packet(Family.IPV4, 100))
    with namespaces("node") as (node,):
        write_sysctl(node, "ipv6/conf/default/disable_ipv6", "1")
        rtnetlink = node.call(Rtnetlink)
        with contextlib.closing(rtnetlink):
            collector = Collector(
                probes,
                rtnetlink.links,
                node.call(own_netns_cookie),
                monotonic=lambda: now,
            )
            for batch in range(BATCHES):
                names = [f"pod{number}" for number in range(PODS)]
                with namespaces(*names) as pods:
                    for number, pod in enumerate(pods):
                        write_sysctl(pod, "ipv6/conf/default/disable_ipv6", "1")
                        veth(node, f"lxc{number}", pod, "eth0")
                        send_frames(pod, [packet] * N)
                    snapshot = collector.snapshot()
                    alive = [d for d in snapshot.devices if d.scope is Scope.PODS]
                    assert len(alive) == PODS
                # The kernel takes a dead namespace's devices down when it has time.
                wait_until(lambda: not lxc(rtnetlink), "the devices to be gone", 60)
                collector.snapshot()
                now += GRACE_SECONDS
                snapshot = collector.snapshot()
                sent = snapshot.total(Scope.PODS)[Hook.NET_DEV_START_XMIT, Family.IPV4]
                got = snapshot.total(Scope.NODE)[Hook.NETIF_RECEIVE_SKB, Family.IPV4]
                assert sent.histogram.count == got.histogram.count
                assert sent.histogram.count == (batch + 1) * PODS * N
                assert not any(
                    device.scope is Scope.PODS for device in snapshot.devices
                )
        mine = node.call(own_netns_cookie)
    assert not any(key.device.netns == mine for key in probes.read().rows)
    assert not any(probes.read().unrecorded.values())
