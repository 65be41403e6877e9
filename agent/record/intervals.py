# SPDX-License-Identifier: Apache-2.0
"""A record of top, interval by interval: what its node sent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from agent.record.facts import histograms, measured, shapes, when
from agent.record.lines import RecordError, Recording, no_interval
from agent.snapshot.comparison import BYTES_SENT, Facts, Measured
from agent.snapshot.evidence import FAMILIES
from agent.snapshot.model import Hook, Lengths, Scope
from agent.snapshot.sample import Period


@dataclass
class _Told:
    """What was sent in each interval: bytes a second, and lengths."""

    rates: list[float] = field(default_factory=list)
    sent: list[Lengths] = field(default_factory=list)

    def until(self, intervals: int) -> None:
        """Nothing was sent in those up to here that are missing."""
        self.rates += [0.0] * (intervals - len(self.rates))


def of_top(path: str) -> Measured:
    """A value per interval; none of one in which the agent was restarted.

    RecordError says what is wrong with the record, and where.
    """
    told: dict[str, _Told] = {}
    seconds = []
    with Recording(path) as recording:
        first = recording.sample(0)
        for period in _periods(recording):
            seconds.append(period.seconds)
            for family, lengths in _sent_by_the_node(period).items():
                its = told.setdefault(family, _Told())
                its.until(len(seconds) - 1)
                its.rates.append(period.per_second(lengths.histogram.bytes))
                its.sent.append(lengths)
    if not seconds:
        raise no_interval(path)
    for its in told.values():
        its.until(len(seconds))
    families = {at: told[at] for at in FAMILIES if at in told and any(told[at].rates)}
    if not families:
        raise RecordError(
            f"{path}: the node sent nothing", "record while there is traffic"
        )
    snapshot = first.snapshot
    return measured(
        path,
        name="",
        test="",
        about={
            "test": "what the node sent",
            "intervals": str(len(seconds)),
            "interval": f"{median(seconds):.1f} s",
            "taken": when(first.taken),
            "kernel": snapshot.kernel,
            "Cilium": snapshot.cilium.version if snapshot.cilium else "-",
            "bigtcp-agent": snapshot.version,
        },
        families={
            family: Facts(
                {BYTES_SENT: tuple(its.rates), **shapes(its.sent)},
                histograms({"sent": its.sent}),
            )
            for family, its in families.items()
        },
    )


def _periods(recording: Recording) -> Iterator[Period]:
    """Without those in which the agent, or its edges, became another."""
    first = before = recording.sample(0)
    for number in range(1, len(recording)):
        now = recording.sample(number)
        if now.started == before.started and now.edges == first.edges:
            period = now.since(before)
            if period.seconds > 0:
                yield period
        before = now


def _sent_by_the_node(period: Period) -> dict[str, Lengths]:
    sums: dict[str, Lengths] = {}
    for key, line in period.lines.items():
        if line.scope is Scope.NODE and key.hook == Hook.NET_DEV_START_XMIT:
            before = sums.get(key.family)
            sums[key.family] = before.add(line.lengths) if before else line.lengths
    return sums
