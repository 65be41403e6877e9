# SPDX-License-Identifier: Apache-2.0
"""Records of the first versions that wrote any are readable.

first/top.jsonl is what `top --record` of 973cb18 wrote, first/netperf.json what
`netperf --record` of f82c9b5 did.
"""

from pathlib import Path

from agent.record.lines import Recording
from agent.record.measured import read
from agent.snapshot.comparison import BIG_SHARE, BYTES_SENT, TRANSACTIONS
from agent.views.check import check_text
from agent.views.lines import top_text

FIRST = Path(__file__).parent / "first"


def test_netperf() -> None:
    found = read(str(FIRST / "netperf.json"))
    assert found.families["ipv4"].values[TRANSACTIONS] == (100.0, 101.5)
    assert found.about["verdict"] == "ipv4 active · C06"


def test_top_is_compared() -> None:
    found = read(str(FIRST / "top.jsonl"))
    assert found.families["ipv4"].values[BYTES_SENT] == (202_000,)
    assert found.families["ipv4"].values[BIG_SHARE] == (200_000 / 202_000,)
    assert found.about["Cilium"] == "1.20.2"


def test_top_is_shown() -> None:
    with Recording(str(FIRST / "top.jsonl")) as recording:
        last, whole = recording.sample(1), recording.whole()
    assert last.snapshot.cilium_agent is None
    text = top_text(last, whole, "a record")
    assert text.startswith("node1, Linux 6.18.1, Cilium 1.20.2\n")
    assert "shop/web" in text
    assert "C12 warning (ipv6)" in check_text(last.snapshot, "a record")
