# SPDX-License-Identifier: Apache-2.0
"""Exactly this verdict and these findings, with these severities: `check` ends with
exit code 5 where one is above info.
"""

import itertools
import re
from dataclasses import replace

import pytest

from agent.snapshot.cilium import BigTcp
from agent.snapshot.evidence import Evidence
from agent.snapshot.findings import FINDING_IDS, FINDINGS
from agent.snapshot.findings.finding import Severity
from agent.snapshot.model import Family, Sizes
from agent.snapshot.verdict import State
from tests.snapshot.world import BEFORE, BIG, DOWN, IPV4, IPV6, LEGACY, UP, World


def test_every_id_is_told_by_some_function_and_no_other() -> None:
    """They are constants there, each a string of its own."""
    told = {
        constant
        for find in FINDINGS
        for constant in find.__code__.co_consts
        if isinstance(constant, str) and re.fullmatch(r"C\d\d", constant)
    }
    assert sorted(told) == list(FINDING_IDS)


def test_all_is_well() -> None:
    assert World().told() == ([State.ACTIVE, State.ACTIVE], [])


def test_off() -> None:
    world = World()
    world.only()
    world.resize("eth0", DOWN)
    world.resize("lxc1", DOWN)
    world.silence()
    assert world.told() == ([State.DISABLED, State.DISABLED], [])


def test_no_traffic_is_no_evidence() -> None:
    world = World()
    world.silence()
    assert world.told() == ([State.IDLE, State.IDLE], [])
    assert world.verdict.families[IPV4].reason == "not enough traffic to tell"


def test_big_although_nobody_asked() -> None:
    world = World()
    world.applied, world.left = None, False
    assert world.told() == ([State.UNMANAGED, State.UNMANAGED], [])


def test_a_pod_at_64_kib_where_nobody_asked() -> None:
    """The uplink was raised by hand, and there is no Cilium."""
    world = World()
    world.applied, world.left = None, False
    world.resize("lxc1", DOWN)
    assert world.told() == ([State.UNMANAGED, State.UNMANAGED], [])
    assert len(Evidence(world.snapshot).pods) == 1


def test_one_family_only() -> None:
    world = World()
    world.only(IPV6)
    world.rows = {key: row for key, row in world.rows.items() if key.family is IPV6}
    assert world.told() == ([State.DISABLED, State.ACTIVE], [])


def test_a_node_that_runs_no_cilium_on_purpose() -> None:
    """The ConfigMap is the cluster's, and asks nothing of it."""
    world = World()
    world.mute(DOWN)
    assert world.told()[0] == [State.REFUSED, State.REFUSED]
    world.left = False
    assert world.told() == ([State.DISABLED, State.DISABLED], [])
    for judgement in world.verdict.families.values():
        assert judgement.reason == "there is no Cilium here"
    assert Evidence(world.snapshot).configured(IPV4) is None


@pytest.mark.parametrize("trace", ["answer", "file", "device"])
def test_whatever_cilium_left_is_asked_for(trace: str) -> None:
    world = World()
    said = world.applied
    world.mute(DOWN)
    world.left = False
    if trace == "answer":
        world.applied, world.answers = said, False
    elif trace == "file":
        world.runtime = BEFORE
    else:
        world.add(replace(world.links["lxc1"], name="cilium_host", ifindex=77))
    world.told()
    assert Evidence(world.snapshot).asked_for == (IPV4, IPV6)


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("sizes", [UP, DOWN], ids=["up", "down"])
@pytest.mark.parametrize("configured", [None, False, True])
def test_whatever_is_refused_something_tells_why(
    *, configured: bool | None, sizes: Sizes, answers: bool
) -> None:
    """In every world: exit code 0 would say that nothing is wrong."""
    reports = (BigTcp(), BigTcp(True, LEGACY, LEGACY), BigTcp(True, BIG, BIG))
    flags: tuple[dict[Family, bool] | None, ...]
    flags = (None, {}, {IPV4: True, IPV6: False}, {IPV4: False, IPV6: True})
    refused = 0
    for said, left in itertools.product(
        (None, *itertools.product(reports, repeat=2)), flags
    ):
        world = World()
        world.silence()
        world.resize("eth0", sizes)
        world.configured, world.answers = configured, answers
        if said is None:
            world.applied = None
        else:
            world.change(big_tcp=dict(zip((IPV4, IPV6), said, strict=True)))
        if left is not None:
            world.runtime = replace(BEFORE, big_tcp=left)
        world.told()
        for family in (IPV4, IPV6):
            if world.verdict.families[family].state is State.REFUSED:
                refused += 1
                assert any(
                    family in finding.families and finding.severity is not Severity.INFO
                    for finding in world.verdict.findings
                )
    assert refused
