# SPDX-License-Identifier: Apache-2.0
"""Two nodes on one kernel, an agent in each: whose packets are whose."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from agent.lab.netns import wait_until
from agent.snapshot.model import Hook, Scope
from tests.kernel.frames import gso_frame, send_frames
from tests.kernel.nodes import FAMILIES, Node, two_nodes
from tests.process import agent, fetch

HOOKS = (Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB)
# Others send on this machine, too, but nobody skbs as long as these.
LENGTH, LONGEST_OF_OTHERS, LIMIT = 300_000, "262144.0", 524280

Counts = Counter[tuple[str, str]]  # by hook and scope


def samples(node: Node, address: str, name: str) -> list[Sample]:
    """What the node's agent tells by this name."""
    status, text = node.space.call(lambda: fetch(f"{address}/metrics"))
    assert status == 200
    families = text_string_to_metric_families(text)
    return [each for family in families for each in family.samples if each.name == name]


def unrecorded(node: Node, address: str) -> float:
    name = "bigtcp_skbs_unrecorded_total"
    return float(sum(each.value for each in samples(node, address, name)))


def counts(node: Node, address: str) -> Counts:
    """How many of ours it tells."""
    found: Counts = Counter()
    for sample in samples(node, address, "bigtcp_skb_length_bytes_bucket"):
        sign = {LONGEST_OF_OTHERS: -1, "+Inf": 1}.get(sample.labels["le"], 0)
        found[sample.labels["hook"], sample.labels["scope"]] += sign * int(sample.value)
    return +found


def test_each_agent_counts_its_own_and_nothing_twice() -> None:
    """To the last packet: the node's devices, its pods', and all else."""
    with (
        two_nodes() as (node1, node2, a, b, c),
        agent(within=node1.space) as (_, agent1),
        agent(within=node2.space) as (_, agent2),
    ):
        # From whom by which device to whom: primes, each more than all before it.
        sent = [
            (node1.space, "eth0", node2.space, 2),
            (node2.space, "eth0", node1.space, 3),
            (node1.space, a.device, a.space, 7),
            (node1.space, b.device, b.space, 13),
            (node2.space, c.device, c.space, 29),
            (a.space, "eth0", node1.space, 59),
            (b.space, "eth0", node1.space, 127),
            (c.space, "eth0", node2.space, 257),
        ]
        for sender, device, _, _ in sent:
            sender.set_sizes(device, LIMIT)

        def heard() -> bool:
            """A new row may find no memory, which is told: then once more."""
            before = [unrecorded(node1, agent1), unrecorded(node2, agent2)]
            for number, (sender, device, _, _) in enumerate(sent):
                send_frames(
                    sender, [gso_frame(FAMILIES[number % 2], 3000, 1400)], device
                )
            return before == [unrecorded(node1, agent1), unrecorded(node2, agent2)]

        wait_until(heard, "every row to be there")
        for number, (sender, device, _, count) in enumerate(sent):
            frame = gso_frame(FAMILIES[number % 2], LENGTH, 1400)
            send_frames(sender, [frame] * count, device)
        total = sum(count for *_, count in sent)
        own: Counter[str] = Counter()
        for node, others, address in (
            (node1, (node2.space, c.space), agent1),
            (node2, (node1.space, a.space, b.space), agent2),
        ):
            scope = {node.space: Scope.NODE}
            scope |= {pod.space: Scope.PODS for pod in node.pods}
            scope |= dict.fromkeys(others, Scope.OTHER)
            expected: Counts = Counter()
            for sender, _, receiver, count in sent:
                expected[Hook.NET_DEV_START_XMIT, scope[sender]] += count
                expected[Hook.NETIF_RECEIVE_SKB, scope[receiver]] += count

            def arrived(node: Node = node, address: str = address) -> bool:
                return counts(node, address).total() >= 2 * total

            wait_until(arrived, "the packets to arrive")
            got = counts(node, address)
            assert got == expected
            for hook in HOOKS:
                assert sum(got[hook, each] for each in Scope) == total
                own[hook] += got[hook, Scope.NODE] + got[hook, Scope.PODS]
    assert own == dict.fromkeys(HOOKS, total)
