# SPDX-License-Identifier: Apache-2.0
"""Records of both kinds become what can be compared, or one sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.record.lines import RecordError, Writer
from agent.record.measured import read
from agent.record.netperf import Device
from agent.snapshot.comparison import (
    BIG_SHARE,
    BYTES_SENT,
    LATENCIES,
    LONGEST,
    SEGMENTS,
    TRANSACTIONS,
)
from agent.snapshot.model import Hook
from tests.record.fakes import BIG, record
from tests.snapshot.fakes import OURS, lengths
from tests.snapshot.test_sample import World


def test_netperf(tmp_path: Path) -> None:
    path = tmp_path / "on.json"
    path.write_text(json.dumps(json.loads(record("", [7.0, 9.0], 50).json()), indent=1))
    found = read(str(path))
    assert (found.name, found.kind, found.test) == (
        "on",
        "netperf",
        "TCP_RR 80000:80000",
    )
    assert found.about["devices"] == "eth0 196,608 B"
    assert found.about["verdict"] == "ipv4 active · C06"
    facts = found.families["ipv4"]
    assert facts.values[TRANSACTIONS] == (7, 9)
    assert facts.values[LATENCIES["p90"]] == (22, 22)
    assert facts.values[BIG_SHARE] == (5_000_000 / 5_050_000,) * 2
    assert facts.values[SEGMENTS] == (35, 35)
    assert facts.values[LONGEST] == (100_000, 100_000)
    assert facts.histograms["sent"].slots == (100, 0, 100, 0)
    assert "received" not in facts.histograms


def test_sizes_of_devices(tmp_path: Path) -> None:
    path, made = tmp_path / "on.json", record("on", [7.0], 50)
    ipv4_only = replace(BIG, gso_max=65536)
    others = tuple(Device(f"lxc{n}", "veth", ipv4_only) for n in range(9))
    for more, told in (
        (others[:1], "eth0 196,608 B; lxc0 IPv4 196,608 B, IPv6 65,536 B"),
        (others, "eth0 196,608 B"),
    ):
        path.write_text(replace(made, devices=made.devices + more).json())
        assert read(str(path)).about["devices"] == told


def test_netperf_that_no_agent_saw(tmp_path: Path) -> None:
    path = tmp_path / "on.json"
    path.write_text(record("\x1b[31mred\ud800", [7.0], 50, seen=False).json())
    found = read(str(path))
    assert found.name == "\ufffd[31mred\ufffd"
    assert found.families["ipv4"].values[BIG_SHARE] == ()
    assert found.families["ipv4"].histograms == {}


def test_top_interval_by_interval(tmp_path: Path) -> None:
    path, world = tmp_path / "a.jsonl", World()

    def pause(seconds: float) -> None:
        world.now += seconds
        recorded.add(world.sample().picture)

    with Writer(str(path)) as recorded:
        world.probes.put(OURS, 2, lengths(1))
        pause(1)
        world.probes.put(OURS, 2, lengths(1, 4))
        world.probes.put(OURS + 1, 2, lengths(0, 99))  # another namespace's
        world.probes.put(OURS, 2, lengths(9), hook=Hook.NETIF_RECEIVE_SKB)
        pause(2)
        world.start()  # anew: what it counted before is counted once more
        pause(1)
        world.probes.put(OURS, 2, lengths(5, 4))
        pause(4)
        pause(1)
    found = read(str(path))
    assert (found.name, found.kind, found.test) == ("a", "top", "")
    assert (found.about["intervals"], found.about["interval"]) == ("3", "2.0 s")
    assert set(found.families) == {"ipv4"}
    facts = found.families["ipv4"]
    assert facts.values[BYTES_SENT] == (200_000, 1000, 0)
    assert facts.values[BIG_SHARE] == (1, 0)
    assert facts.values[SEGMENTS] == (69, 1)
    assert facts.histograms["sent"].slots == (4, 0, 4, 0)


def test_top_without_an_interval_or_traffic(tmp_path: Path) -> None:
    path, world = tmp_path / "a.jsonl", World()
    with Writer(str(path)) as recorded:
        recorded.add(world.sample().picture)
        with pytest.raises(RecordError, match="has no interval"):
            read(str(path))
        world.now += 1
        recorded.add(world.sample().picture)
    with pytest.raises(RecordError, match="the node sent nothing"):
        read(str(path))


GOOD = record("on", [7.0], 50).json()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "line 1, column 1: this is no JSON"),
        ("{\n 5", "line 2, column 2: this is no JSON"),
        ("\xff", "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
        ("[1]", "this is no record of netperf or top$"),
        ('{"schema": "bigtcp.demo/v1"}', "netperf or top, but bigtcp.demo/v1"),
        (GOOD.replace("netperf/v1", "netperf/v2"), "its format is bigtcp.netperf/v2"),
        (
            GOOD.replace('"p99": 29', '"p99": "x"'),
            r"families.ipv4.runs\[0\].latency_us.p99: exp",
        ),
        (GOOD[:-1], "line 1, column .*: this is no JSON"),
        ('{"schema": "bigtcp.record/v2"}\n', "line 1: its format is bigtcp.record/v2"),
        ('{"schema": "bigtcp.record/v1"}\n', "line 1: this is no record"),
        (
            '{"schema": "bigtcp.record/v1", "kind": "top"}\n{"a": 1}\n',
            "line 2: schema: this member is missing",
        ),
    ],
)
def test_what_is_corrupt(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(RecordError, match=why) as caught:
        read(str(path))
    assert str(path) in caught.value.message


@pytest.mark.parametrize("path", ["/", "/none"])
def test_what_cannot_be_read(path: str) -> None:
    with pytest.raises(RecordError, match=f"{path} cannot be read: "):
        read(path)
