# SPDX-License-Identifier: Apache-2.0
"""Which counts belong to which pod, and a cap under which nothing jumps."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.snapshot.collector import Collector
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import OTHER_PODS, DeviceId, Family, Hook, Lengths
from agent.snapshot.pods import Families, PodName, Pods, PodsTraffic, traffic_of
from agent.snapshot.snapshot import Snapshot
from agent.views.pod_metrics import MOST_PODS, POD_EDGES, pod_metrics
from tests.snapshot.fakes import OURS, FakeProbes, lengths, link

V4 = Family.IPV4
EDGES = (128, 512, 1500, 4096, 9000, 65536, 81920, 131072, 196608, 262144)


def names(*ifindexes: int) -> dict[int, PodName]:
    return {ifindex: PodName("default", f"pod{ifindex}") for ifindex in ifindexes}


def snapshot(counts: dict[int, int], beyond: int = 0) -> Snapshot:
    """Pods that sent so many skbs and received twice as many."""
    probes = FakeProbes()
    for ifindex, count in counts.items():
        probes.put(100 + ifindex, 2, lengths(count), peer=DeviceId(OURS, ifindex))
        probes.put(
            *(100 + ifindex, 2, lengths(9)),
            hook=Hook.NETIF_RECEIVE_SKB,
            peer=DeviceId(OURS, ifindex),
        )
    received = {(i, V4): lengths(2 * count) for i, count in counts.items()}
    received |= {(OTHER_PODS, V4): lengths(beyond)} if beyond else {}
    probes.reading = replace(probes.reading, pods_received=received)
    links = [link(ifindex, f"lxc{ifindex}") for ifindex in counts]
    return Collector(probes, lambda: links, OURS).snapshot()


def count(families: Families) -> int:
    return families[V4].histogram.count if families else 0


def sent(traffic: PodsTraffic) -> dict[str, int]:
    return {pod.pod: count(pod.sent) for pod in traffic.named}


def test_sent_by_the_pods_own_device_received_by_address() -> None:
    here = snapshot({11: 3, 12: 5})
    a, b, idle = traffic_of(here, names(11, 12, 13))
    assert (a.namespace, a.pod, a.ifindex) == ("default", "pod11", 11)
    assert (count(a.sent), count(a.received)) == (3, 6)
    assert (count(b.sent), count(b.received)) == (5, 10)
    assert (idle.sent, idle.received) == ({}, {})


def test_who_has_a_name_keeps_it_and_the_sum_never_falls() -> None:
    pods = Pods(most=1)
    first = pods.traffic(snapshot({12: 5}), names(12))
    assert (sent(first), count(first.others.sent), first.summed) == ({"pod12": 5}, 0, 0)
    # One that would stand before it comes, and the kernel's own cap sums some.
    second = pods.traffic(snapshot({11: 3, 12: 5}, beyond=50), names(11, 12))
    assert (sent(second), second.summed) == ({"pod12": 5}, 1)
    assert (count(second.others.sent), count(second.others.received)) == (3, 56)
    # The named one goes: the other gets its place and begins at zero.
    third = pods.traffic(snapshot({11: 3}), names(11))
    assert (sent(third), count(third.others.sent)) == ({"pod11": 0}, 3)
    fourth = pods.traffic(snapshot({11: 7}), names(11))
    assert (sent(fourth), count(fourth.others.sent)) == ({"pod11": 4}, 3)
    # A summed one goes: the sum keeps what it had counted.
    pods.traffic(snapshot({11: 7, 13: 8}), names(11, 13))
    last = pods.traffic(snapshot({11: 7}), names(11))
    assert (sent(last), count(last.others.sent), last.summed) == ({"pod11": 4}, 11, 0)


def test_a_list_that_is_short_once_moves_no_counts() -> None:
    """As from an agent of Cilium that restores its endpoints."""
    pods, here = Pods(most=1), snapshot({12: 1000, 11: 10})
    pods.traffic(here, names(12))
    before = pods.traffic(here, names(11, 12))
    assert (sent(before), count(before.others.sent)) == ({"pod12": 1000}, 10)
    none = pods.traffic(here, {})
    assert (none.named, count(none.others.sent)) == ((), 10)
    for _ in range(2):
        after = pods.traffic(here, names(11, 12))
        assert count(after.others.sent) == 10
        assert (sent(after), after.summed) == ({"pod11": 0}, 1)
    more = pods.traffic(snapshot({12: 1003, 11: 15}), names(11, 12))
    assert (sent(more), count(more.others.sent)) == ({"pod11": 5}, 13)


def test_a_row_that_is_away_for_a_moment_is_not_counted_twice() -> None:
    pods = Pods(most=1)
    for now, told in (({12: 5}, 5), ({}, 5), ({12: 6}, 6), ({12: 2}, 8)):
        assert sent(pods.traffic(snapshot(now), names(12))) == {"pod12": told}


_STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.integers(11, 14), st.integers(0, 9)),
        st.sets(st.integers(11, 14)),
    ),
    max_size=12,
)


@given(_STEPS, st.integers(0, 3))
def test_whoever_is_listed_every_packet_is_counted_once(
    steps: list[tuple[dict[int, int], set[int]]], most: int
) -> None:
    pods = Pods(most)
    now = dict.fromkeys(range(11, 15), 1)
    listed: dict[int, int] = {}  # what each had sent when it was last listed
    shown: dict[str, int] = {}
    others = 0
    for more, indexes in steps:
        now = {ifindex: n + more.get(ifindex, 0) for ifindex, n in now.items()}
        told = pods.traffic(snapshot(now), names(*sorted(indexes)))
        listed |= {ifindex: now[ifindex] for ifindex in indexes}
        assert all(n >= shown.get(pod, 0) for pod, n in sent(told).items())
        assert count(told.others.sent) >= others
        shown |= sent(told)
        others = count(told.others.sent)
        assert others + sum(shown.values()) == sum(listed.values())


def test_an_older_snapshot_adds_nothing() -> None:
    """Two scrapes at once."""
    pods, older = Pods(most=1), snapshot({11: 3, 12: 5})
    before = pods.traffic(snapshot({11: 4, 12: 7}), names(11, 12))
    assert pods.traffic(older, names(11, 12)) == before


@given(st.lists(st.integers(0, 300_000), max_size=50))
def test_fewer_edges_hold_the_same_counts(sizes: list[int]) -> None:
    def counted(edges: tuple[int, ...]) -> Histogram:
        slots = [0] * (len(edges) + 1)
        for size in sizes:
            slots[sum(size > edge for edge in edges)] += 1
        return Histogram(edges, tuple(slots), sum(sizes))

    assert counted(EDGES).coarser(POD_EDGES) == counted(POD_EDGES)


def test_250_pods_stay_below_the_budget_of_series() -> None:
    """With both families; 1,500 series are for all that is no pod."""
    many = Histogram(EDGES, (1,) * (len(EDGES) + 1), 1000)
    both = {Family.IPV4: Lengths(many), Family.IPV6: Lengths(many)}
    here = snapshot(dict.fromkeys(range(1, 251), 1))
    traffic = Pods(MOST_PODS).traffic(here, names(*range(1, 251)))
    full = replace(
        traffic,
        named=tuple(replace(pod, sent=both, received=both) for pod in traffic.named),
        others=replace(traffic.others, sent=both, received=both),
    )
    series = [sample for metric in pod_metrics(full) for sample in metric.samples]
    assert len(series) == 32 * (MOST_PODS + 1) + 1 < 6000 - 1500
    assert traffic.summed == 250 - MOST_PODS
    upto = [
        sample
        for sample in series
        if sample.labels.get("pod") == "(others)" and sample.name.endswith("_bucket")
    ]
    assert [s.labels["le"] for s in upto[:6]] == [
        *(str(float(edge)) for edge in POD_EDGES),
        "+Inf",
    ]
