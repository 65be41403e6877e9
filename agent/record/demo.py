# SPDX-License-Identifier: Apache-2.0
"""A demo as records of netperf, one for each way of running."""

from agent import __version__
from agent.record.netperf import Counted, Device, Record, Run, Series
from agent.snapshot.experiment import Arm, Comparison, Demo, Trial

_DEVICE, _KIND = "eth0", "veth"  # of the client; all of a stand's are of that kind


def records(demo: Demo) -> dict[str, Record]:
    """By the name of the way: "off", "on" and, with a router, "cut"."""
    first = demo.comparisons[0].arms
    return {arm.name: _record(demo, number) for number, arm in enumerate(first)}


def _record(demo: Demo, number: int) -> Record:
    arm = demo.comparisons[0].arms[number]
    return Record(
        name=arm.name,
        taken=demo.taken,
        version=__version__,
        netperf=demo.netperf,
        kernel=demo.kernel,
        machine=demo.machine,
        server=f"another network namespace ({demo.topology})",
        test=demo.test,
        edges=arm.histogram.edges,
        families={
            comparison.family: _series(comparison, comparison.arms[number])
            for comparison in demo.comparisons
        },
        devices=tuple(
            Device(name, _KIND, sizes) for name, sizes in arm.devices.items()
        ),
        node=None,
    )


def _series(comparison: Comparison, arm: Arm) -> Series:
    return Series(comparison.address, tuple(_run(trial) for trial in arm.trials))


def _run(trial: Trial) -> Run:
    result = trial.netperf
    return Run(
        ended=trial.ended,
        transactions_per_second=result.transactions_per_second,
        latency_us=result.latency_us,
        elapsed_seconds=result.elapsed_seconds,
        sent=Counted.of(_DEVICE, trial.sent),
        received=Counted.of(_DEVICE, trial.received),
    )
