# SPDX-License-Identifier: Apache-2.0
"""A kernel that says what the test wants."""

from collections.abc import Iterable
from dataclasses import replace

from agent.snapshot.cilium import CiliumPod, Endpoint
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import (
    Counters,
    Device,
    DeviceId,
    Family,
    Hook,
    Lengths,
    Link,
    Reading,
    Row,
    RowKey,
    Sizes,
)

EDGES = (1500, 65536, 196608)
OURS = 7  # net_cookie of the agent's namespace
SIZES = Sizes(65536, 65536, 524280, 65536, 65536)


def link(
    ifindex: int,
    name: str,
    rx: int = 0,
    tx: int = 0,
    *,
    kind: str = "",
    master: int | None = None,
    **more: bool,
) -> Link:
    return Link(
        ifindex=ifindex,
        name=name,
        kind=kind,
        mac="",
        loopback=more.get("loopback", False),
        in_subnet=more.get("in_subnet", False),
        parent=None,
        master=master,
        netnsid=None,
        header=14,
        mtu=1500,
        sizes=SIZES,
        counters=Counters(rx, tx),
    )


def endpoint(
    ifindex: int,
    pod: str = "",
    *addresses: str,
    interface: str = "lxc1",
    number: int = 1,
) -> Endpoint:
    """A pod in namespace default; without `pod` Cilium does not tell its name."""
    return Endpoint(
        id=number,
        ifindex=ifindex,
        interface=interface,
        addresses=addresses,
        namespace="default" if pod else "",
        pod=pod,
        is_pod=True,
    )


# An agent of Cilium that ended with exit code 1, again and again.
CRASHED = CiliumPod(
    namespace="kube-system",
    name="cilium-x7k2p",
    waiting="CrashLoopBackOff",
    restarts=12,
    exit_code=1,
    reason="Error",
    message="",
    finished=None,
)


def lengths(small: int = 0, big: int = 0) -> Lengths:
    """`small` skbs of 1,000 bytes and `big` of 100,000."""
    histogram = Histogram(
        EDGES, (small, 0, big, 0), 1000 * small + 100_000 * big, 100_000 * big
    )
    return Lengths(histogram, small + 69 * big, 100_000 if big else 1000)


class FakeProbes:
    """Rows and devices are put in; `forget` takes them out, as the kernel would."""

    def __init__(self) -> None:
        self.attached = dict.fromkeys(
            (Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB), True
        )
        self.failing = False
        self.reading = Reading(EDGES, {}, {}, {"map_full": 0})

    def put(
        self,
        netns: int,
        ifindex: int,
        counted: Lengths,
        *,
        hook: Hook = Hook.NET_DEV_START_XMIT,
        family: Family = Family.IPV4,
        name: str = "eth0",
        peer: DeviceId | None = None,
        limit: int = 65536,
    ) -> None:
        at = DeviceId(netns, ifindex)
        key = RowKey(at, hook, family)
        self.reading = replace(
            self.reading,
            rows=self.reading.rows | {key: Row(key, counted, limit)},
            devices=self.reading.devices
            | {at: Device(at, 4026530000 + netns, name, "veth", "", peer)},
        )

    def read(self) -> Reading:
        if self.failing:
            raise OSError(5, "input/output error")
        return self.reading

    def forget(self, rows: Iterable[RowKey], devices: Iterable[DeviceId]) -> None:
        dead, dead_devices = set(rows), set(devices)
        self.reading = replace(
            self.reading,
            rows={k: v for k, v in self.reading.rows.items() if k not in dead},
            devices={
                k: v for k, v in self.reading.devices.items() if k not in dead_devices
            },
        )
