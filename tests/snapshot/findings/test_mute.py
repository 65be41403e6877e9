# SPDX-License-Identifier: Apache-2.0
"""Cilium belongs on the node, and its agent does not answer: C22."""

from dataclasses import replace

import msgspec
import pytest

from agent.snapshot.cilium import CiliumPod
from agent.snapshot.evidence import Evidence
from agent.snapshot.findings.log_lines import MAX_LINE, last_error
from agent.snapshot.schema import SnapshotJson, SourceJson
from agent.snapshot.verdict import State
from agent.typed_json import convert
from agent.views.check import check_text
from agent.views.picture import picture
from agent.views.who import cilium_words, no_findings
from tests.snapshot.fakes import CRASHED, link
from tests.snapshot.world import DOWN, World

# From the log of cilium-agent 1.20.2, asked for BIG TCP with a tunnel.
REFUSED = (
    'time=2026-11-30T04:00:00.000000000Z level=info msg="Invoked duplicate flags"\n'
    "time=2026-11-30T04:00:01.000000000Z level=error source=/go/src/start.go:51 "
    'msg="Start hook failed" error="BIG TCP in tunneling mode requires pending '
    'kernel support"\n'
    "time=2026-11-30T04:00:02.000000000Z level=info msg=Stopping\n"
)
REASON = "Start hook failed: BIG TCP in tunneling mode requires pending kernel support"
POD = replace(CRASHED, message=REFUSED, finished=1764475260.0)


def test_how_its_pod_ended() -> None:
    world = World()
    world.mute(DOWN)
    world.cilium_pods = (POD,)
    assert world.told()[1] == ["C22 warning"]
    (finding,) = world.verdict.findings
    assert finding.seen.endswith(
        "; its pod kube-system/cilium-x7k2p ended with exit code 1 at 2025-11-30 04:01 "
        "UTC, was restarted 12 times (CrashLoopBackOff): Start hook failed: BIG TCP in "
        "tunneling mode requires pending kernel support"
    )
    assert finding.remedy == (
        "kubectl logs -n kube-system cilium-x7k2p -c cilium-agent --previous"
    )


@pytest.mark.parametrize("pods", [None, (), (POD,)], ids=["not asked", "none", "one"])
@pytest.mark.parametrize("found", [None, True, False])
def test_what_a_cilium_that_was_removed_has_left(
    found: bool | None, pods: tuple[CiliumPod, ...] | None
) -> None:
    """Its devices and directory are there until the machine is started anew. That is
    told where the API server was asked for the ConfigMap and the pod, and has neither.
    """
    world = World()
    world.mute()
    world.configured, world.found = None if found is None else False, bool(found)
    world.cilium_pods = pods
    assert "C22 warning" in world.told()[1]
    told = [
        each for each in world.verdict.findings if "restart the node" in each.remedy
    ]
    assert bool(told) is (found is False and pods == ())
    for finding in told:
        assert finding.id == "C22"
        assert finding.remedy.startswith("look at its pod: kubectl get pods -A")


def test_of_two_pods_the_one_that_does_not_run() -> None:
    """While a pod is replaced there may be two."""
    world = World()
    world.mute(DOWN)
    new = replace(POD, name="cilium-new", waiting="", restarts=0, exit_code=None)
    world.cilium_pods = (new, POD)
    world.told()
    found = Evidence(world.snapshot).cilium_pod
    assert found
    assert found.name == POD.name


def test_a_pod_that_never_came_up() -> None:
    """Nothing in the directory, no device: the pod alone says that it belongs here."""
    world = World()
    world.mute(DOWN)
    world.left = False
    assert world.told()[0] == [State.DISABLED] * 2
    waiting = replace(POD, waiting="ImagePullBackOff", restarts=0, exit_code=None)
    world.cilium_pods = (waiting,)
    assert world.told() == ([State.REFUSED] * 2, ["C22 warning"])
    assert "waits: ImagePullBackOff" in world.verdict.findings[0].seen


@pytest.mark.parametrize("configured", [None, False, True])
@pytest.mark.parametrize("trace", ["directory", "device", "last words"])
def test_it_is_told_whatever_is_known_of_what_was_asked(
    configured: bool | None, trace: str
) -> None:
    world = World()
    said = world.applied
    world.mute()
    world.configured, world.left = configured, trace == "directory"
    if trace == "device":
        world.add(replace(link(7, "cilium_host"), kind="veth"))
    elif trace == "last words":
        world.applied, world.answers = said, False
    _, findings = world.told()
    assert "C22 warning" in findings
    if configured is None and trace != "last words":
        reasons = [family.reason for family in world.verdict.families.values()]
        assert all("not known" in reason for reason in reasons), reasons


def test_cilium_that_is_not_asked_is_not_called_mute() -> None:
    """--no-cilium, and BIG TCP is configured: refused, and never without a finding."""
    world = World()
    world.mute(DOWN)
    world.problems = {"cilium": "not asked: --no-cilium"}
    assert world.told() == ([State.REFUSED] * 2, ["C02 warning"] * 2)
    shown = convert(picture(world.snapshot), SnapshotJson)
    assert cilium_words(shown) == "Cilium was not asked"
    assert "not answer" not in check_text(shown, "us")


def test_cilium_that_is_not_asked_is_no_reason_to_be_content() -> None:
    world = World()
    world.mute()
    world.configured = None
    world.problems = {"cilium": "not asked: --no-cilium"}
    assert world.told() == ([State.DISABLED] * 2, [])
    text = check_text(convert(picture(world.snapshot), SnapshotJson), "us")
    assert "No problems found on this node" not in text


def test_what_was_not_checked_is_said() -> None:
    """A hook that is not attached, a source that failed: no word of "this node"."""
    world = World()
    world.told()
    good = convert(picture(world.snapshot), SnapshotJson)
    assert no_findings(good) == "No problems found on this node"
    failed = SourceJson(up=False, errors=1, problem="no route to host")
    absent = SourceJson(up=False, errors=0, problem="not asked: no --node-name")
    for change, missing in (
        (
            {"attached": {**good.attached, "net_dev_queue": False}},
            "what is cut in software (net_dev_queue is not attached)",
        ),
        (
            {"sources": {**good.sources, "configmap": failed}},
            "configmap (no route to host)",
        ),
        ({"sources": {**good.sources, "configmap": absent}}, ""),
    ):
        snapshot = msgspec.structs.replace(good, **change)
        expected = f"No problems found; not checked: {missing}"
        assert no_findings(snapshot) == (expected if missing else no_findings(good))


def test_not_asked_to_the_end_yet_is_not_mute() -> None:
    """The first answer of a slow Cilium; and --no-cilium."""
    world = World()
    world.mute(DOWN)
    world.problems = {"cilium": "no answer yet"}
    assert "C22 warning" not in world.told()[1]
    world.errors = 1
    assert "C22 warning" in world.told()[1]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", ""),
        (REFUSED, REASON),
        ("one\n\n two \n", "two"),
        ("level=fatal msg=BIG\x1b[31m", "BIG [31m"),
        ("level=info msg=a\nlevel=warning msg=b", "b"),
        ("level=error nothing that has fields", "level=error nothing that has fields"),
        ("x" * 5000, "x" * (MAX_LINE - 1) + "…"),
    ],
    ids=["none", "slog", "plain", "control", "mild", "no fields", "long"],
)
def test_the_line_that_matters(message: str, line: str) -> None:
    assert last_error(message) == line
