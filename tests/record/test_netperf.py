# SPDX-License-Identifier: Apache-2.0
"""A record of netperf: what was written is read, what is wrong is named."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agent.record.netperf import Record
from agent.typed_json import convert
from tests.record.fakes import record


@pytest.mark.parametrize("seen", [True, False])
def test_what_was_written_is_read(seen: bool) -> None:
    written = record("on", [100.0, 101.5], 50, seen=seen)
    text = written.json()
    assert "\n" not in text
    assert convert(json.loads(text), Record) == written


def test_how_many_runs_there_are() -> None:
    both = record("on", [100.0, 101.0, 102.0], 50)
    series = both.families["ipv4"]
    fewer = replace(series, runs=series.runs[:2])
    assert both.runs == "3"
    assert replace(both, families={"ipv4": fewer}).runs == "2 of 3"
    assert replace(both, families={"ipv4": series, "ipv6": fewer}).runs == "2 to 3 of 3"


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("edges", [1500, 1500, 9000], "edges: they do not ascend"),
        ("families", {}, "families: there is none"),
        ("families.other", {"address": "", "runs": []}, "families.other: .* no run"),
        ("families.ipv4.runs", [], "families.ipv4: there is no run"),
        ("families.ipv4.runs.0.sent.slots", [1], r"runs\[0\].sent.slots: 3 edges need"),
        ("families.ipv4.runs.0.sent.big_bytes", 10**9, "sent: big_bytes: more than"),
        (
            "families.ipv4.runs.0.latency_us.p99",
            None,
            r"^families\.ipv4\.runs\[0\]\.latency_us\.p99: expected `float`, got",
        ),
        ("test.request", "80000", "^test.request: expected `int`, got `str`"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, why: str) -> None:
    told: dict[str, Any] = json.loads(record("on", [100.0], 50).json())
    *way, last = path.split(".")
    at: Any = told
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    with pytest.raises(ValueError, match=why):
        convert(told, Record)


def test_a_family_that_is_none() -> None:
    told = json.loads(record("on", [100.0], 50).json())
    told["families"]["ipx"] = told["families"]["ipv4"]
    with pytest.raises(ValueError, match="there is no family 'ipx'"):
        convert(told, Record)
