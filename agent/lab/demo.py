# SPDX-License-Identifier: Apache-2.0
"""BIG TCP off and on, on this machine: the lab without a cluster.

Arms run in turns (off, on, on, off, ...), both ends on one CPU: that measures
the CPU's work per transaction and repeats within 1 %; on two CPUs the wake-up
between them dominates and the difference drowns.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from agent.errors import AgentError
from agent.kernel.probes import Probes
from agent.lab import netperf
from agent.lab.machine import machine
from agent.lab.netns import Namespace, Stand, chain, pair
from agent.lab.programs import require
from agent.snapshot.experiment import Arm, Comparison, Demo, TcpRr, Trial
from agent.snapshot.model import Family, Hook, Lengths, Reading

LEGACY, BIG = 65536, 196608
HOOKS = (Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB, Hook.NET_DEV_QUEUE)


@dataclass(frozen=True)
class Way:
    """A way of running: the size of all devices, the uplink's where it differs."""

    name: str
    size: int
    uplink: int | None = None


@dataclass(frozen=True)
class Topology:
    """A stand and the ways that are compared on it; the first is the reference."""

    stand: Callable[[], AbstractContextManager[Stand]]
    ways: tuple[Way, ...]
    device: str


TOPOLOGIES = {
    "pair": Topology(pair, (Way("off", LEGACY), Way("on", BIG)), "eth0 of the client"),
    "router": Topology(
        chain,
        (Way("off", LEGACY), Way("cut", BIG, uplink=LEGACY), Way("on", BIG)),
        "uplink of the router",
    ),
}


def _lengths(
    reading: Reading, where: tuple[Namespace, str], hook: Hook, family: Family
) -> Lengths:
    namespace, name = where
    for key, row in reading.rows.items():
        device = reading.devices.get(key.device)
        if (
            (key.hook, key.family) == (hook, family)
            and device is not None
            and (device.id.netns, device.name) == (namespace.cookie, name)
        ):
            return row.lengths
    return Lengths.empty(reading.edges)


@contextmanager
def _probes() -> Iterator[Probes]:
    with Probes.load(HOOKS) as probes:
        for hook, why in probes.failures.items():
            raise AgentError(
                f"the demo needs {hook}: {why.message}", why.hint, why.detail
            )
        yield probes


@dataclass(frozen=True)
class _Bench:
    """What every trial needs."""

    stand: Stand
    cpu: int
    seconds: int

    def trial(self, way: Way, family: Family) -> Trial:
        """Set the sizes, run netperf, read what was counted.

        Probes of its own: unlike a difference of two readings they tell the
        longest skb, too.
        """
        self.stand.set_sizes(way.size, way.uplink)
        ours = self.stand.devices[0]
        suspect = self.stand.uplink or ours
        with _probes() as probes:
            result = netperf.tcp_rr(
                self.stand.client,
                self.stand.addresses[family],
                self.cpu,
                self.seconds,
            )
            ended = time.time()
            if not result.transactions_per_second:
                raise AgentError(
                    f"no transaction of {family} ended within {self.seconds} s",
                    "see what the machine is busy with, or give --seconds more",
                )
            seen = probes.read()
        queued = _lengths(seen, suspect, Hook.NET_DEV_QUEUE, family)
        transmitted = _lengths(seen, suspect, Hook.NET_DEV_START_XMIT, family)
        return Trial(
            netperf=result,
            ended=ended,
            sent=_lengths(seen, ours, Hook.NET_DEV_START_XMIT, family),
            received=_lengths(seen, ours, Hook.NETIF_RECEIVE_SKB, family),
            queued_big=queued.histogram.above(LEGACY),
            transmitted_big=transmitted.histogram.above(LEGACY),
            unrecorded=seen.unrecorded,
        )

    def arm(self, way: Way, trials: list[Trial]) -> Arm:
        """The trials of a way, with the sizes that it sets."""
        self.stand.set_sizes(way.size, way.uplink)
        return Arm(way.name, self.stand.sizes(), tuple(trials))


def _order(ways: tuple[Way, ...], rounds: int) -> Iterator[Way]:
    """Every way once a round, backwards in every other round."""
    for number in range(rounds):
        yield from reversed(ways) if number % 2 else ways


def run(
    topology: str,
    families: tuple[Family, ...],
    rounds: int,
    seconds: int,
    progress: Callable[[str], None],
) -> Demo:
    """Run it all: `rounds` trials of `seconds` for every way and family.

    `progress` gets a short text before each trial. Namespaces and servers are
    gone afterwards, whatever ended it.
    """
    require("netperf", "netserver", "taskset")
    chosen, taken = TOPOLOGIES[topology], time.time()
    cpu = max(os.sched_getaffinity(0))
    with chosen.stand() as stand:
        netperf.serve(stand.server, cpu)
        bench = _Bench(stand, cpu, seconds)
        comparisons = []
        for family in families:
            progress(f"{family}: warming up")
            bench.trial(chosen.ways[0], family)
            trials: dict[Way, list[Trial]] = {way: [] for way in chosen.ways}
            for way in _order(chosen.ways, rounds):
                done = len(trials[way]) + 1
                progress(f"{family}: BIG TCP {way.name}, run {done} of {rounds}")
                trials[way].append(bench.trial(way, family))
            arms = tuple(bench.arm(way, runs) for way, runs in trials.items())
            comparisons.append(Comparison(family, stand.addresses[family], arms))
    size = netperf.MESSAGE_BYTES
    return Demo(
        taken=taken,
        kernel=platform.release(),
        machine=machine(),
        netperf=netperf.version(),
        topology=topology,
        device=chosen.device,
        test=TcpRr(size, size, seconds, rounds, cpu),
        comparisons=tuple(comparisons),
    )
