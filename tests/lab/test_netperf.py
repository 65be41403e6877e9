# SPDX-License-Identifier: Apache-2.0
"""netperf's output is read key by key, and what is missing is named."""

import pytest

from agent.errors import AgentError
from agent.lab.netperf import parse
from agent.snapshot.experiment import Netperf

# Recorded from netperf 2.7.1 with -P 0 -j and -k.
RECORDED = """\
THROUGHPUT=45712.37
THROUGHPUT_UNITS=Trans/s
MIN_LATENCY=17
P90_LATENCY=20
P99_LATENCY=22
"""


def test_recorded_answer() -> None:
    assert parse(RECORDED) == Netperf(45712.37, 17, 20, 22)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "did not print THROUGHPUT, "),
        (RECORDED.replace("P99_LATENCY=22\n", ""), "did not print P99_LATENCY"),
        (RECORDED.replace("Trans/s", "10^6bits/s"), "not transactions"),
        (RECORDED.replace("=17", "=fast"), "no number"),
    ],
)
def test_anything_else_is_refused(output: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        parse(output)
