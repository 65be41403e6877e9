# SPDX-License-Identifier: Apache-2.0
"""Records of netperf that say what the test wants."""

from agent.record.netperf import (
    Cilium,
    Counted,
    Device,
    Node,
    Record,
    Run,
    Series,
)
from agent.snapshot.cilium import BigTcp
from agent.snapshot.experiment import Latency, TcpRr
from agent.snapshot.model import Family, Sizes
from tests.snapshot.fakes import EDGES, lengths

LEGACY = Sizes(65536, 65536, 524280, 65536, 65536)
BIG = Sizes(196608, 196608, 524280, 196608, 196608)


def run(rate: float, big: int, *, p50: float = 20, seen: bool = True) -> Run:
    """`big` of 100 skbs are of 100,000 bytes, the others of 1,000."""
    counted = Counted.of("eth0", lengths(100 - big, big)) if seen else None
    latency = Latency(p50 / 2, p50 + 1.5, p50, p50 + 2, p50 + 9, p50 * 90, 3.25)
    return Run(1e9 + rate, rate, latency, 1.0, counted, None)


def record(
    name: str, rates: list[float], big: int, *, p50: float = 20, seen: bool = True
) -> Record:
    """A run of IPv4 for each rate."""
    sizes = BIG if big else LEGACY
    device = Device("eth0", "veth", sizes)
    return Record(
        name=name,
        taken=1e9,
        version="0.1.0",
        netperf="2.7.1",
        kernel="6.18.1",
        machine="A CPU, 2 CPUs",
        server="192.0.2.2:12865",
        test=TcpRr(80000, 80000, 1, len(rates)),
        edges=EDGES if seen else (),
        families={
            "ipv4": Series(
                "192.0.2.2",
                tuple(run(rate, big, p50=p50, seen=seen) for rate in rates),
            )
        },
        devices=(device,),
        node=Node(
            Cilium("1.20.2", {Family.IPV4: BigTcp(bool(big), sizes.gso_max, 65536)}),
            (device,),
            {"ipv4": "active" if big else "disabled"},
            ("C06",),
        )
        if seen
        else None,
    )
