# SPDX-License-Identifier: Apache-2.0
"""What the product says on a node with Cilium's own agent, from BIG TCP off to an
agent that refuses to start: never "No problems" where something is.

Each state begins where the one before it has ended, so a test walks there from the
first (`pytest -k tunnel` takes all six).
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import AgentError
from agent.lab.netns import wait_until
from tests.cilium.node import NODE, OFF, ON, CiliumNode, Ended, cilium_node
from tests.process import agent, fetch

VERSION = "1.20.2"
FAMILIES = ("ipv4", "ipv6")
PODS = {"default/p1", "default/p2"}
# What only a node without Cilium, or one where all is well, may be told.
FALSE_COMFORT = ("no cilium", "no problems")


@dataclass
class Walk:
    """A node and where it is; `ended` is how its agent did, where it refused."""

    node: CiliumNode
    url: str  # of our agent, which runs all the way
    folder: Path  # of a home without a kubeconfig of the machine's
    done: list[str] = field(default_factory=list)
    ended: Ended | None = None

    def go_to(self, state: str) -> None:
        for name, step in STATES.items():
            if name not in self.done:
                step(self)
                self.done.append(name)
            if name == state:
                return

    # --- the six states

    def off(self) -> None:
        """As Cilium comes."""
        self.node.configure(**OFF)
        self.node.start()
        self.node.start_pods()

    def configured(self) -> None:
        """The ConfigMap has changed, and nobody has restarted the agent."""
        self.node.configure(**ON)

    def old_pods(self) -> None:
        """The agent was restarted, the pods were not."""
        self.node.restart()

    def on(self) -> None:
        """The pods were restarted, too."""
        self.node.delete_pods()
        self.node.start_pods()

    def legacy(self) -> None:
        """Legacy host routing is asked for: the agent refuses to start."""
        self._refuse(enable_host_legacy_routing="true")
        assert self.ended
        assert "legacy host routing" in self.ended.log

    def tunnel(self) -> None:
        """A tunnel is asked for: the agent refuses to start."""
        self._refuse(
            enable_host_legacy_routing="false",
            routing_mode="tunnel",
            auto_direct_node_routes="false",
        )
        assert self.ended
        assert "tunnel" in self.ended.log

    def _refuse(self, **settings: str) -> None:
        self.node.stop()
        self.node.configure(**settings)
        self.node.launch()
        self.ended = self.node.wait_for_end()
        assert self.ended.code

    # --- what the product says

    def command(self, *argv: str) -> list[str]:
        """bigtcp-agent on the node, asking our agent there."""
        program = (sys.executable, "-P", "-m", "agent")
        return self.node.namespace.command(*program, *argv, "--url", self.url)

    def run(self, *argv: str) -> tuple[int, str]:
        """Exit code and output."""
        done = subprocess.run(
            self.command(*argv), capture_output=True, text=True, check=False
        )
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout

    def check(self) -> tuple[int, dict[str, Any]]:
        code, text = self.run("check", "-o", "json")
        return code, json.loads(text)

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample of a verdict, a finding and a count of pods, by its labels."""
        status, text = self.node.namespace.call(lambda: fetch(f"{self.url}/metrics"))
        assert status == 200
        wanted = ("bigtcp_verdict", "bigtcp_finding", "bigtcp_pods")
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): (
                sample.value
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in wanted
        }


STATES: dict[str, Callable[[Walk], None]] = {
    step.__name__: step
    for step in (
        Walk.off,
        Walk.configured,
        Walk.old_pods,
        Walk.on,
        Walk.legacy,
        Walk.tunnel,
    )
}


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with cilium_node(VERSION, tmp_path_factory.mktemp("node")) as node:
        flags = (
            *("--cilium-socket", str(node.socket), "--node-name", NODE),
            *("--kubeconfig", str(node.api.kubeconfig("admin")), "--max-pods", "16"),
            "--cilium-pod",
        )
        with agent(*flags, within=node.namespace) as (_, url):
            yield Walk(node, url, tmp_path_factory.mktemp("home"))


def told_by_all(walk: Walk, right: Callable[[int, dict[str, Any]], bool]) -> str:
    """The text of `check`, once `check` is right while netperf runs and /metrics and
    `top` tell the same; what they said last is shown where that never is so.

    Our agent asks Cilium every five seconds, so what was true before may be told for a
    moment.
    """
    last: list[Any] = []

    def agreed() -> str:
        with ThreadPoolExecutor(1) as background:
            traffic = background.submit(walk.node.traffic, 2)
            _, top = walk.run("top", "--once", "--interval", "2", "-o", "json")
            assert set(traffic.result()) == set(FAMILIES)
        code, checked = walk.check()
        text_code, text = walk.run("check")
        said = [
            of_snapshot(checked),
            of_snapshot(json.loads(top)),
            of_metrics(walk.metrics()),
        ]
        last[:] = [code, *said, text]
        same = said[0] == said[1] == said[2] and code == text_code
        return text if same and right(code, checked) else ""

    try:
        return wait_until(agreed, "all to be right", 40)
    except AgentError:
        sys.stderr.write("".join(f"{part}\n" for part in last))
        raise


def of_snapshot(said: dict[str, Any]) -> tuple[dict[str, str], set[str]]:
    """Verdicts by family, and ids of findings, of `check` and `top`."""
    states = {name: said["families"][name]["state"] for name in FAMILIES}
    findings = said["findings"]  # of `top` ids alone
    return states, {each if isinstance(each, str) else each["id"] for each in findings}


def of_metrics(
    metrics: dict[tuple[str, ...], float],
) -> tuple[dict[str, str], set[str]]:
    ones = [labels for labels, value in metrics.items() if value == 1]
    states = {each[1]: each[2] for each in ones if each[0] == "bigtcp_verdict"}
    return states, {each[1] for each in ones if each[0] == "bigtcp_finding"}


def states_of(checked: dict[str, Any]) -> set[str]:
    return {checked["families"][name]["state"] for name in FAMILIES}


def ids(checked: dict[str, Any]) -> set[str]:
    return {finding["id"] for finding in checked["findings"]}


def pods_of(checked: dict[str, Any]) -> set[str]:
    return {pod["name"] for pod in checked["pods"]}


def pod_counts(walk: Walk, state: str) -> set[float]:
    metrics = walk.metrics()
    return {metrics["bigtcp_pods", family, state] for family in FAMILIES}


def test_off(walk: Walk) -> None:
    walk.go_to("off")

    def right(code: int, said: dict[str, Any]) -> bool:
        return (code, states_of(said), ids(said)) == (0, {"disabled"}, set())

    assert "no cilium" not in told_by_all(walk, right).lower()
    assert pods_of(walk.check()[1]) == PODS
    assert pod_counts(walk, "legacy") == {2}


def test_configured_and_not_restarted(walk: Walk) -> None:
    walk.go_to("configured")

    def right(code: int, said: dict[str, Any]) -> bool:
        return (code, states_of(said), ids(said)) == (5, {"refused"}, {"C12"})

    assert "restart daemonset/cilium" in told_by_all(walk, right)


def test_pods_not_restarted(walk: Walk) -> None:
    walk.go_to("old_pods")

    def right(code: int, said: dict[str, Any]) -> bool:
        return (code, states_of(said), ids(said)) == (5, {"partial"}, {"C06"})

    text = told_by_all(walk, right)
    assert all(name in text for name in PODS), text
    assert pod_counts(walk, "legacy") == {2}
    assert pod_counts(walk, "big") == {0}


def test_on(walk: Walk) -> None:
    walk.go_to("on")

    def right(code: int, said: dict[str, Any]) -> bool:
        return (code, states_of(said), ids(said)) == (0, {"active"}, set())

    told_by_all(walk, right)
    assert pods_of(walk.check()[1]) == PODS
    assert pod_counts(walk, "big") == {2}
    assert pod_counts(walk, "legacy") == {0}


@pytest.mark.parametrize("state", ["legacy", "tunnel"])
def test_an_agent_that_refuses_to_start(walk: Walk, state: str) -> None:
    walk.go_to(state)
    assert walk.ended
    reason = walk.ended.log.splitlines()[-1].rpartition(": ")[2].partition('"')[0]

    last_words = (f"ended with exit code {walk.ended.code}", reason)

    def right(code: int, said: dict[str, Any]) -> bool:
        seen = " ".join(
            each["seen"] for each in said["findings"] if each["id"] == "C22"
        )
        return code == 5 and all(each in seen for each in last_words)

    text = " ".join(told_by_all(walk, right).split())
    assert not [lie for lie in FALSE_COMFORT if lie in text.lower()], text
    assert "Cilium's agent does not answer" in text
    assert pods_of(walk.check()[1]) == PODS
