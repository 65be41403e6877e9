# SPDX-License-Identifier: Apache-2.0
"""netperf against a server, and what the agent of this node saw meanwhile."""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent import __version__
from agent.errors import AgentError
from agent.kernel.links import Rtnetlink
from agent.lab import netperf, netserver
from agent.lab.machine import machine
from agent.lab.programs import require
from agent.record.netperf import Cilium, Counted, Device, Node, Record, Run, Series
from agent.snapshot.experiment import TcpRr
from agent.snapshot.model import Family
from agent.snapshot.sample import Line, Sample
from agent.snapshot.schema import SnapshotJson
from agent.witness import Witness


@dataclass(frozen=True, slots=True)
class Server:
    """Where netserver is: as it was named, its port, and its addresses."""

    name: str
    port: int
    addresses: Mapping[Family, str]


def find(name: str, host: str, port: int, wanted: tuple[Family, ...]) -> Server:
    """The addresses of `host`, each of which answers; AgentError otherwise."""
    require("netperf", "setpriv")
    found = netserver.addresses(host, wanted)
    for address in found.values():
        netserver.require_answer(address, port)
    return Server(name, port, found)


class _Runs:
    """Runs, and the last that the agent said."""

    def __init__(self, test: TcpRr, server: Server, witness: Witness) -> None:
        self._test = test
        self._server = server
        self._witness = witness
        self.last: Sample | None = None

    def run(self, family: Family) -> Run:
        """Once; AgentError where netperf fails."""
        test, witness = self._test, self._witness
        before = witness.sample()
        result = netperf.run(test, self._server.addresses[family], self._server.port)
        ended = time.time()
        after = witness.sample()
        sent = received = None
        if before and after:
            transactions = result.transactions_per_second * result.elapsed_seconds
            sent, received = witness.passed(
                before,
                after,
                family,
                transactions * test.request,
                transactions * test.response,
            )
        self.last = after or self.last
        return Run(
            ended=ended,
            transactions_per_second=result.transactions_per_second,
            latency_us=result.latency_us,
            elapsed_seconds=result.elapsed_seconds,
            sent=_counted(sent),
            received=_counted(received),
        )


def _counted(line: Line | None) -> Counted | None:
    return Counted.of(line.device, line.lengths) if line else None


def measure(
    name: str,
    test: TcpRr,
    server: Server,
    witness: Witness,
    progress: Callable[[str], None],
) -> tuple[Record, AgentError | None]:
    """All runs, the families in turns; up to one that fails, and why that did.

    AgentError where it is the first.
    """
    taken = time.time()
    runs = _Runs(test, server, witness)
    found: dict[Family, list[Run]] = {family: [] for family in server.addresses}
    failed = None
    try:
        for number in range(test.repeats):
            for family, its in found.items():
                progress(f"{family}: run {number + 1} of {test.repeats}")
                its.append(runs.run(family))
    except AgentError as err:
        if not any(found.values()):
            raise
        failed = err
    last = runs.last
    record = Record(
        name=name,
        taken=taken,
        version=__version__,
        netperf=netperf.version(),
        kernel=platform.release(),
        machine=machine(),
        server=server.name,
        test=test,
        edges=last.edges if last else (),
        families={
            family: Series(server.addresses[family], tuple(its))
            for family, its in found.items()
            if its
        },
        devices=_devices(),
        node=_node(last.snapshot) if last else None,
    )
    return record, failed


def own_netns() -> int:
    """The inode of our network namespace."""
    return os.stat("/proc/self/ns/net").st_ino


def _devices() -> tuple[Device, ...]:
    """Those of our network namespace."""
    with contextlib.closing(Rtnetlink()) as rtnetlink:
        links = rtnetlink.links()
    return tuple(
        Device(link.name, link.kind, link.sizes) for link in links if not link.loopback
    )


def _node(snapshot: SnapshotJson) -> Node:
    """Of what the agent says of its node, that which explains a result."""
    cilium = snapshot.cilium
    return Node(
        Cilium(cilium.version, cilium.big_tcp) if cilium else None,
        tuple(Device(each.name, each.kind, each.sizes) for each in snapshot.devices),
        {family: each.state for family, each in snapshot.families.items()},
        tuple(finding.id for finding in snapshot.findings),
    )
