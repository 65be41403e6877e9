# SPDX-License-Identifier: Apache-2.0
"""What `demo` shows people, to the letter."""

from dataclasses import replace

import pytest

from agent.kernel.contract import Contract, bpf_directory
from agent.lab.demo import BIG, LEGACY
from agent.snapshot.experiment import (
    Arm,
    Comparison,
    Demo,
    Gain,
    Latency,
    Netperf,
    TcpRr,
    Trial,
)
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import Lengths, Sizes
from agent.views.report import demo_text

EDGES = Contract.read(bpf_directory()).edges
ACKS, WHOLE, PIECE = 60, 80_052, 64_000
SLOT = {ACKS: 0, PIECE: EDGES.index(65536), WHOLE: EDGES.index(81920)}


def sent(skbs: dict[int, int], segments: int) -> Lengths:
    """So many skbs of these lengths."""
    slots = [0] * (len(EDGES) + 1)
    for length, count in skbs.items():
        slots[SLOT[length]] += count
    size = sum(length * count for length, count in skbs.items())
    big = WHOLE * skbs.get(WHOLE, 0)
    return Lengths(Histogram(EDGES, tuple(slots), size, big), segments, max(skbs))


def trial(rate: float, lengths: Lengths, queued: int = 0, left: int = 0) -> Trial:
    least = round(1e6 / rate)
    p90, p99 = least + 7, least + 22
    latency = Latency(least, least + 1, least + 2, p90, p99, least + 99, 3.5)
    result = Netperf(rate, latency, 1.0)
    return Trial(result, 1e9, lengths, lengths, queued, left, {"map_full": 0})


def arm(name: str, size: int, trials: list[Trial]) -> Arm:
    return Arm(name, {"eth0": Sizes(size, size, None, size, size)}, tuple(trials))


SMALL = sent({ACKS: 100, PIECE: 100}, 5700)
LARGE = sent({ACKS: 50, WHOLE: 50}, 2850)
OFF = arm("off", LEGACY, [trial(rate, SMALL) for rate in (20_000, 21_000, 19_000)])
CUT = arm("cut", BIG, [trial(rate, LARGE, 50) for rate in (8_000, 8_100, 7_900)])
ON = arm("on", BIG, [trial(rate, LARGE, 50, 50) for rate in (30_000, 25_200, 28_500)])


def demo(*arms: Arm, unrecorded: int = 0) -> Demo:
    first, *others = arms
    missed = replace(first.trials[0], unrecorded={"map_full": unrecorded})
    first = replace(first, trials=(missed, *first.trials[1:]))
    return Demo(
        taken=1e9,
        kernel="6.18.1",
        machine="A CPU, 2 CPUs",
        netperf="2.7.1",
        topology="router",
        device="uplink of the router",
        test=TcpRr(80000, 80000, 1, 3, 1),
        comparisons=(Comparison("ipv4", "192.0.2.2", (first, *others)),),
    )


ROUTER = """\
netperf TCP_RR 80000:80000, A CPU, 2 CPUs, Linux 6.18.1.
Medians of 3 runs in turns of 1 s, both ends on one CPU.
Lengths are those of the skbs that the client sends.

ipv4, BIG TCP              off             cut              on
transactions/s          20,000           8,000          28,500
  against off                          -60.0 %         +50.0 %
  lowest to highest             -61.4 to -58.4  +20.0 to +50.0
latency min              48 µs          123 µs           33 µs
  p90                    57 µs          132 µs           42 µs
  p99                    72 µs          147 µs           57 µs
bytes above 64 KiB       0.0 %          99.9 %          99.9 %
longest skb           64,000 B        80,052 B        80,052 B
wire packets per skb      28.5            28.5            28.5

    up to  BIG TCP off            BIG TCP cut            BIG TCP on
    128 B  ██████▌        50.0 %  ██████▌        50.0 %  ██████▌        50.0 %
    512 B
  1,500 B
    4 KiB
  9,000 B
   16 KiB
   32 KiB
   48 KiB
   64 KiB  ██████▌        50.0 %
······················ 64 KiB · above: only with BIG TCP ·······················
   80 KiB                         ██████▌        50.0 %  ██████▌        50.0 %

BIG TCP cut: segmented in software at uplink of the router: 60 % slower than BIG
TCP off. 150 skbs above 64 KiB were queued there, none was transmitted: its
limit is 64 KiB.

7 skbs were not counted (map_full)

BIG TCP on: ipv4 +50.0 % transactions/s"""


def test_the_router_to_the_letter() -> None:
    assert demo_text(demo(OFF, CUT, ON, unrecorded=7)) == ROUTER


def test_a_gain_is_that_of_pairs() -> None:
    """Whatever is slow for a while is slow for both."""
    gain = Gain.between(OFF, ON)
    assert (gain.median, gain.high) == (50, 50)
    assert gain.low == pytest.approx(20)
    assert Gain.between(OFF, CUT).median == pytest.approx(-60)


def test_what_is_cut_in_part_is_not_called_cut() -> None:
    left_one = replace(CUT, trials=(*CUT.trials[1:], trial(8_000, LARGE, 50, 1)))
    assert "segmented in software" in demo_text(demo(OFF, CUT))
    assert "segmented in software" not in demo_text(demo(OFF, left_one))
    assert "not counted" not in demo_text(demo(OFF, ON))
