# SPDX-License-Identifier: Apache-2.0
"""What measured runs of traffic showed, and how two ways of running compare."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from agent.snapshot.histogram import Histogram
from agent.snapshot.model import Lengths, Sizes
from agent.typed_json import Count, Number


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a transaction took, in microseconds, as netperf's `-k` tells it:
    whole ones, except mean and standard deviation.
    """

    min: Number
    mean: Number
    p50: Number
    p90: Number
    p99: Number
    max: Number
    stddev: Number


@dataclass(frozen=True, slots=True)
class Netperf:
    """One netperf TCP_RR. `elapsed_seconds` is how long it really took."""

    transactions_per_second: float
    latency_us: Latency
    elapsed_seconds: float


@dataclass(frozen=True, slots=True)
class TcpRr:
    """What is run: bytes of a request and of a response, whole seconds of a run,
    how many runs, and the CPU that netperf is pinned to, None where it is not.
    """

    request: Count
    response: Count
    seconds: Count
    repeats: Count
    cpu: Count | None = None

    def __str__(self) -> str:
        return f"TCP_RR {self.request}:{self.response}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: netperf's result and what the hooks saw meanwhile.

    `ended` in seconds since the epoch. `sent`: net_dev_start_xmit at the client's
    device, `received`: netif_receive_skb there. `queued_big` and
    `transmitted_big`: skbs above 64 KiB at net_dev_queue and at
    net_dev_start_xmit of the device in question (the uplink, where there is
    one, else the client's). `unrecorded`: skbs that the probes missed, by reason.
    """

    netperf: Netperf
    ended: float
    sent: Lengths
    received: Lengths
    queued_big: int
    transmitted_big: int
    unrecorded: dict[str, int]


@dataclass(frozen=True, slots=True)
class Arm:
    """All trials of one way of running, such as "off", in the order of running.

    `devices`: the limits of every device on the way, by name, the client's first.
    """

    name: str
    devices: Mapping[str, Sizes]
    trials: tuple[Trial, ...]

    @property
    def transactions_per_second(self) -> float:
        """Median of the trials."""
        return median(trial.netperf.transactions_per_second for trial in self.trials)

    @property
    def latencies_us(self) -> tuple[float, float, float]:
        """Minimum of the minima, median of P90, median of P99."""
        results = [trial.netperf for trial in self.trials]
        return (
            min(result.latency_us.min for result in results),
            median(result.latency_us.p90 for result in results),
            median(result.latency_us.p99 for result in results),
        )

    @property
    def sent(self) -> Lengths:
        """What the client sent in all trials together."""
        first, *others = (trial.sent for trial in self.trials)
        for lengths in others:
            first = first.add(lengths)
        return first

    @property
    def histogram(self) -> Histogram:
        """Histogram of `sent`."""
        return self.sent.histogram

    @property
    def segments_per_skb(self) -> float | None:
        """Wire packets that an skb stood for, on average."""
        return self.sent.segments_per_skb

    @property
    def segmented_in_software(self) -> int:
        """Big skbs that were queued at the device in question, where none that
        big was ever transmitted; 0 where some were.
        """
        if any(trial.transmitted_big for trial in self.trials):
            return 0
        return sum(trial.queued_big for trial in self.trials)


@dataclass(frozen=True, slots=True)
class Gain:
    """Difference of two arms in per cent of the first: pair by pair, so that
    what disturbs the machine for a while disturbs both.
    """

    median: float
    low: float
    high: float

    @classmethod
    def between(cls, before: Arm, after: Arm) -> "Gain":
        """From trials that ran in turns; ValueError where there are none."""
        percents = [
            100
            * (
                b.netperf.transactions_per_second / a.netperf.transactions_per_second
                - 1
            )
            for a, b in zip(before.trials, after.trials, strict=True)
        ]
        return cls(median(percents), min(percents), max(percents))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One address family, against one address of the server: its arms, the first of
    which is the reference.
    """

    family: str
    address: str
    arms: tuple[Arm, ...]

    def gain(self, arm: Arm) -> Gain:
        """Of an arm over the reference."""
        return Gain.between(self.arms[0], arm)


@dataclass(frozen=True, slots=True)
class Demo:
    """All that `bigtcp-agent demo` found out.

    `taken`: when it began, in seconds since the epoch. `netperf` is its version,
    `test` what was run in each arm and family. `device` names where software
    segmentation was looked for.
    """

    taken: float
    kernel: str
    machine: str
    netperf: str
    topology: str
    device: str
    test: TcpRr
    comparisons: tuple[Comparison, ...]

    @property
    def unrecorded(self) -> dict[str, int]:
        """Skbs that the probes missed in all trials together, by reason."""
        total: Counter[str] = Counter()
        for comparison in self.comparisons:
            for arm in comparison.arms:
                for trial in arm.trials:
                    total.update(trial.unrecorded)
        return dict(total)
