# SPDX-License-Identifier: Apache-2.0
"""What single pods cost: an skb at netif_receive_skb, and a scrape of 250 pods."""

import contextlib
import ctypes
import os
import statistics
from collections.abc import Callable, Iterator

from agent.kernel import libbpf
from agent.kernel.contract import Contract, bpf_directory
from agent.kernel.probes import Probes
from agent.snapshot.collector import Collector
from agent.snapshot.model import DeviceId, Hook
from agent.snapshot.naming import Naming
from agent.snapshot.pods import PodName, Pods
from agent.snapshot.sources import Surroundings
from agent.views.exporter import FromSource
from agent.views.pod_metrics import MOST_PODS
from tests.bench import simulated
from tests.snapshot.fakes import OURS, link

PODS = 250
RECEIVE = Hook.NETIF_RECEIVE_SKB
(POD_RECEIVE,) = Contract.read(bpf_directory()).pseudo_hooks


@contextlib.contextmanager
def _bpf_stats() -> Iterator[None]:
    """Run times are kept by the kernel while this fd is open."""
    fd = ctypes.CDLL("libbpf.so.1", use_errno=True).bpf_enable_stats(0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "bpf_enable_stats")
    try:
        yield
    finally:
        os.close(fd)


def per_skb(
    send: Callable[[], float], receiver: int, address: str, rounds: int
) -> None:
    """`send` sends for a while and says ns a packet; `receiver`: a net_cookie."""
    arms: dict[str, tuple[int | None, dict[str, int]]] = {
        "off": (None, {}),
        "on, no pod's address": (receiver, {"192.0.2.200": 9}),
        "on, a pod's address": (receiver, {address: 9}),
        "on, one of 2,000 addresses": (
            receiver,
            {f"10.0.{i >> 8}.{i & 255}": 10 + i // 2 for i in range(1999)}
            | {address: 9},
        ),
    }
    inside: dict[str, list[float]] = {name: [] for name in arms}
    whole: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in reversed(arms) if number % 2 else arms:
            pods_of_, addresses = arms[name]
            with Probes.load([RECEIVE], pods_of=pods_of_) as probes:
                if pods_of_ is not None:
                    probes.set_pod_addresses(addresses)
                whole[name].append(send())
                with _bpf_stats():
                    before = libbpf.program_info(probes.programs[RECEIVE])
                    send()
                    after = libbpf.program_info(probes.programs[RECEIVE])
            runs = after.run_count - before.run_count
            inside[name].append((after.run_time_ns - before.run_time_ns) / runs)
    print(f"\nsingle pods, ns an skb at {RECEIVE}, {rounds} rounds:")
    for name in arms:
        more = sorted(a - b for a, b in zip(whole[name], whole["off"], strict=True))
        ran = inside[name]
        print(
            f"  {name:28} bpf_stats {statistics.median(ran):4.0f} "
            f"({min(ran):.0f} to {max(ran):.0f})   a packet over off "
            f"{statistics.median(more):4.0f} ({more[0]:.0f} to {more[-1]:.0f})"
        )


def scrape(rounds: int) -> None:
    pods = range(100, 100 + PODS)
    rows = [(OURS, i, 1, family, 0) for i in pods for family in (4, 6)]
    rows += [(i + 1000, 2, 0, family, 0) for i in pods for family in (4, 6)]
    rows += [(OURS, i, POD_RECEIVE, family, 0) for i in pods for family in (4, 6)]
    peers = {DeviceId(i + 1000, 2): DeviceId(OURS, i) for i in pods}
    links = [link(2, "eth0"), *(link(i, f"lxc{i}") for i in pods)]
    names = {i: PodName("default", f"pod{i}") for i in pods}
    shown = Pods(MOST_PODS)
    with simulated.probes(rows, peers, pods_of=OURS) as probes:
        probes.set_pod_addresses({f"10.0.{i >> 8}.{i & 255}": i for i in pods})
        around = Surroundings(naming=Naming(lambda name: name == "eth0"))
        collector = Collector(probes, lambda: links, OURS, around)
        source = FromSource(
            collector.snapshot, lambda snapshot: shown.traffic(snapshot, names)
        )
        times, text = simulated.scrapes(source, rounds)
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    print(
        f"scrape, {PODS} pods of {simulated.CPUS} CPUs: "
        f"{statistics.median(times):.1f} ms ({min(times):.1f} to {max(times):.1f}; "
        f"budget 100), {series} series (budget 6000)"
    )
