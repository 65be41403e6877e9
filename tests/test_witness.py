# SPDX-License-Identifier: Apache-2.0
"""The agent tells what passed between two samples, or nothing at all."""

from collections.abc import Callable, Iterator

import pytest

from agent.server.http_server import Server
from agent.server.routes import make_routes
from agent.settings import Address
from agent.snapshot.model import Hook
from agent.snapshot.sample import Line
from agent.snapshot.snapshot import Snapshot
from agent.witness import Witness
from tests.process import nobody
from tests.snapshot.fakes import OURS, lengths
from tests.snapshot.test_sample import World

NETNS = 4026530000 + OURS  # as FakeProbes calls it
RECEIVED = Hook.NETIF_RECEIVE_SKB


class Node:
    """A world that is served as an agent does it, and a witness that asks."""

    def __init__(self, url: str, world: World) -> None:
        self.world = world
        self.probes = world.probes
        self.notes: list[str] = []
        self.witness = Witness(url, NETNS, self.notes.append)

    def passed(
        self, meanwhile: Callable[[], None], least: float = 1
    ) -> tuple[Line | None, Line | None]:
        before = self.witness.sample()
        meanwhile()
        after = self.witness.sample()
        assert before
        assert after
        return self.witness.passed(before, after, "ipv4", least, least)


@pytest.fixture
def node() -> Iterator[Node]:
    """It has sent 5 small skbs and 3 big ones."""
    world = World()
    world.probes.put(OURS, 2, lengths(5, 3))

    def snapshot(_: float = 0) -> Snapshot:
        return world.collector.snapshot()  # of the one that `start` made last

    routes = make_routes(snapshot, snapshot)
    with Server(Address("127.0.0.1", 0)) as server, server.serving(routes):
        yield Node(f"http://127.0.0.1:{server.port}", world)


def test_what_our_busiest_device_sent_and_received(node: Node) -> None:
    def traffic() -> None:
        node.probes.put(OURS, 2, lengths(6, 9))
        node.probes.put(OURS, 3, lengths(9, 1), name="eth1")
        node.probes.put(OURS + 1, 2, lengths(0, 99), name="another's")
        node.probes.put(OURS, 3, lengths(2, 0), name="eth1", hook=RECEIVED)

    sent, received = node.passed(traffic)
    assert sent
    assert received
    assert (sent.device, sent.lengths) == ("eth0", lengths(1, 6))
    assert (received.device, received.lengths.histogram.count) == ("eth1", 2)
    assert node.notes == []


def test_an_old_longest_is_not_ours(node: Node) -> None:
    sent, _ = node.passed(lambda: node.probes.put(OURS, 2, lengths(9, 3)))
    assert sent
    assert sent.lengths.longest == 1500  # the slot's edge: four of 1,000 bytes


def test_traffic_that_the_agent_did_not_see(node: Node) -> None:
    assert node.passed(lambda: None, 1e6) == (None, None)
    (note,) = node.notes
    assert "saw 0 of 1,000,000 bytes leave" in note


def test_a_restart_makes_no_histogram(node: Node) -> None:
    def restart() -> None:
        node.world.now += 1
        node.world.start()
        node.probes.put(OURS, 2, lengths(99, 99))

    assert node.passed(restart) == (None, None)
    (note,) = node.notes
    assert "was started anew" in note
    sent, _ = node.passed(lambda: node.probes.put(OURS, 2, lengths(100, 99)))
    assert sent


def test_it_asks_no_more_where_nobody_answers(node: Node) -> None:
    address, node.witness.url = node.witness.url, nobody()
    assert node.witness.sample() is None
    node.witness.url = address
    assert node.witness.sample() is None
    (note,) = node.notes
    assert "no agent answers" in note


def test_an_agent_that_is_not_ready_is_no_error(node: Node) -> None:
    node.probes.failing = True
    assert node.witness.sample() is None
    (note,) = node.notes
    assert "answered 503" in note
