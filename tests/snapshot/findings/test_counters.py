# SPDX-License-Identifier: Apache-2.0
"""What the agent could not count."""

from dataclasses import replace

import pytest

from agent.snapshot.evidence import Evidence
from agent.snapshot.model import MapEntries
from agent.snapshot.verdict import judge
from tests.snapshot.world import World, assert_it_says_something


def told(rows: int, **unrecorded: int) -> list[str]:
    """Findings of a node where all is well, but for these; where counts are told
    exactly, what they say."""
    world = World()
    world.told()
    snapshot = replace(
        world.snapshot,
        maps={"lengths": MapEntries(rows, 16384)},
        recent=replace(world.snapshot.recent, unrecorded=unrecorded),
    )
    findings = judge(Evidence(snapshot)).findings
    for finding in findings:
        assert_it_says_something(finding)
        assert (finding.id, finding.severity) == ("C25", "warning")
    return [finding.seen for finding in findings]


@pytest.mark.parametrize(
    ("rows", "lost"), [(16384, 0), (16385, 7), (16000, 1), (16384, 123)]
)
def test_a_full_map(rows: int, lost: int) -> None:
    """Also before anything is lost by it, and also where it has room again."""
    (seen,) = told(rows, map_full=lost)
    assert "room for 16,384 rows" in seen
    assert f"{lost:,} packets in 30 s" in seen


def test_no_memory() -> None:
    """A moment without it is no finding: a burst of new devices may bring one."""
    (seen,) = told(1, no_memory=10_000_000)
    assert "no memory for new rows: 10,000,000 packets in 30 s" in seen
    assert not told(1, no_memory=1)


def test_room_for_all() -> None:
    assert not told(16383, map_full=0, no_memory=0, no_device=9, no_address=9, busy=9)
