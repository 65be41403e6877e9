# SPDX-License-Identifier: Apache-2.0
"""What a hook, a start and a scrape cost: `make bench`.

Hooks: 64-byte UDP over a veth, sender and softirq on one CPU, every arm once a
round, the order turned round after round. The cost of an arm is its time per
packet less that of no program at all, halved: a packet passes two hooks.
"""

import argparse
import contextlib
import ctypes
import os
import platform
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from agent.kernel.contract import bpf_directory
from agent.kernel.libbpf import program_info
from agent.kernel.probes import Probes
from agent.lab import netperf
from agent.lab.demo import BIG
from agent.lab.netns import Namespace, pair
from agent.settings import DEFAULT_HOOKS, parse_hooks
from agent.snapshot.collector import Collector
from agent.snapshot.model import DeviceId, Hook
from agent.snapshot.naming import Naming
from agent.snapshot.sources import Surroundings
from agent.views.exporter import FromSource
from tests.bench import pods, simulated
from tests.process import agent, bpf_programs, fetch, start_stages
from tests.snapshot.fakes import OURS, link

HOOKS = (Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB)
BATCH = 1024
PAYLOAD = bytes(22)  # 64 bytes on the wire with UDP, IPv4 and Ethernet headers
TRACEFS = "/sys/kernel/tracing"


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr: only the iovec is used, the socket is connected."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Load:
    """A connected UDP socket, and sendmmsg() on it."""

    socket: socket.socket

    def nanoseconds_per_packet(self, seconds: float) -> float:
        """The cost of a packet, end to end: the least of ten slices of this
        time, since whatever else the machine does only adds.
        """
        return min(self._slice(seconds / 10) for _ in range(10))

    def _slice(self, seconds: float) -> float:
        libc = ctypes.CDLL(None, use_errno=True)
        iovec = _Iovec(PAYLOAD, len(PAYLOAD))
        messages = (_Message * BATCH)()
        for message in messages:
            message.iov, message.iov_length = ctypes.pointer(iovec), 1
        sent, begun = 0, time.perf_counter_ns()
        while (now := time.perf_counter_ns()) < begun + seconds * 1e9:
            done = libc.sendmmsg(self.socket.fileno(), messages, BATCH, 0)
            if done < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            sent += done
        return (now - begun) / sent


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    yield


@contextlib.contextmanager
def ours() -> Iterator[None]:
    with Probes.load(HOOKS):
        yield


def _bcc(text: str) -> Any:
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "headers")
    from bcc import BPF

    return BPF(text=text)


@contextlib.contextmanager
def floor() -> Iterator[None]:
    """An empty raw tracepoint on each hook: what no program can go below."""
    bpf = _bcc("int empty(void *ctx) { return 0; }")
    for hook in HOOKS:
        bpf.attach_raw_tracepoint(hook.encode(), b"empty")
    yield
    bpf.cleanup()


@contextlib.contextmanager
def classic() -> Iterator[None]:
    """A classic tracepoint that adds to a histogram of `len`, nothing more."""
    probe = """
    TRACEPOINT_PROBE(net, %s) {
        u32 slot = args->len > 65536 ? 16 : args->len >> 12;
        u64 *count = lengths.lookup(&slot);
        if (count)
            (*count)++;
        return 0;
    }
    """
    text = "BPF_PERCPU_ARRAY(lengths, u64, 17);\n"
    bpf = _bcc(text + "".join(probe % hook for hook in HOOKS))
    yield
    bpf.cleanup()


@contextlib.contextmanager
def bpftrace() -> Iterator[None]:
    """bpftrace's plain histogram, as its one-liners make it."""
    script = "".join(
        f"tracepoint:net:{hook} {{ @=hist(args->len); }}" for hook in HOOKS
    )
    process = subprocess.Popen(
        ["bpftrace", "-e", script + 'BEGIN { printf("ready\\n"); }'],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        for line in process.stdout:
            if "ready" in line:
                break
        yield
    finally:
        process.terminate()
        process.communicate()


ARMS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "no program": nothing,
    "empty raw_tp (floor)": floor,
    "ours": ours,
    "classic tracepoint": classic,
    "bpftrace hist(args->len)": bpftrace,
}


STATS_ARMS = ("empty raw_tp (floor)", "ours")
STATS_SYSCTL = "/proc/sys/kernel/bpf_stats_enabled"


def run_time(arm: Callable[[], AbstractContextManager[None]], load: Load) -> float:
    """Nanoseconds a run of an arm's programs, as the kernel accounts for them."""
    others = bpf_programs()
    with open(STATS_SYSCTL) as file:
        was = file.read()
    with arm():
        fds = [_program(number) for number in bpf_programs() - others]
        try:
            with open(STATS_SYSCTL, "w") as file:
                file.write("1")
            load.nanoseconds_per_packet(1.0)
        finally:
            with open(STATS_SYSCTL, "w") as file:
                file.write(was)
        infos = [program_info(fd) for fd in fds]
        for fd in fds:
            os.close(fd)
    return sum(info.run_time_ns for info in infos) / sum(
        info.run_count for info in infos
    )


def _program(number: int) -> int:
    fd = int(ctypes.CDLL("libbpf.so.1").bpf_prog_get_fd_by_id(number))
    assert fd >= 0
    return fd


@contextlib.contextmanager
def udp(client: Namespace, server: Namespace, address: str) -> Iterator[Load]:
    """A receiver that nobody reads: what it drops costs every arm the same."""

    def opened() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with server.call(opened) as receiver, client.call(opened) as sender:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.bind(("", 9))
        sender.connect((address, 9))
        yield Load(sender)


def hooks(rounds: int, seconds: float) -> None:
    cpus = os.sched_getaffinity(0)
    times: dict[str, list[float]] = {name: [] for name in ARMS}
    with pair() as stand:
        address = stand.addresses["ipv4"]
        with udp(stand.client, stand.server, address) as load:
            os.sched_setaffinity(0, {max(cpus)})
            load.nanoseconds_per_packet(seconds)
            for number in range(rounds):
                names = list(ARMS)
                for name in reversed(names) if number % 2 else names:
                    with ARMS[name]():
                        times[name].append(load.nanoseconds_per_packet(seconds))
            stats = {name: run_time(ARMS[name], load) for name in STATS_ARMS}
            os.sched_setaffinity(0, cpus)
    print(f"\nns per hook over no program, {rounds} rounds of {seconds:g} s:")
    base = times["no program"]
    print(f"  no program: {statistics.median(base):.0f} ns a packet")
    costs = {}
    for name, values in times.items():
        if values is not base:
            pairs = sorted((a - b) / 2 for a, b in zip(values, base, strict=True))
            costs[name] = statistics.median(pairs)
            spread = f"{pairs[0]:.0f} to {pairs[-1]:.0f}"
            print(f"  {name:26} {costs[name]:6.0f}   ({spread})")
    for other, budget in (
        ("empty raw_tp (floor)", 1.6),
        ("bpftrace hist(args->len)", 0.4),
    ):
        ratio = costs["ours"] / costs[other]
        print(f"  ours / {other}: {ratio:.2f} (budget {budget})")
    print("by the kernel's own bpf_stats, ns a run, its two clock readings included:")
    for name, cost in stats.items():
        print(f"  {name:26} {cost:6.0f}")


def tcp(rounds: int, seconds: int) -> None:
    """The lab's netperf at 192 KiB, without our programs and with them."""
    arms: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "no program": nothing,
        "ours, all hooks": lambda: Probes.load(parse_hooks(DEFAULT_HOOKS)),
    }
    found: dict[str, list[float]] = {name: [] for name in arms}
    cpu = max(os.sched_getaffinity(0))
    with pair() as stand:
        stand.set_sizes(BIG)
        netperf.serve(stand.server, cpu)
        address = stand.addresses["ipv4"]
        netperf.tcp_rr(stand.client, address, cpu, seconds)
        for number in range(rounds):
            for name in reversed(arms) if number % 2 else arms:
                with arms[name]():
                    result = netperf.tcp_rr(stand.client, address, cpu, seconds)
                    found[name].append(result.transactions_per_second)
    print(f"\nTCP_RR 80000:80000 at 192 KiB, {rounds} rounds of {seconds} s:")
    for name, rates in found.items():
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"  {name:26} {statistics.median(rates):,.0f} a second   ({spread})")
    pairs = zip(*found.values(), strict=True)
    gains = sorted(100 * (mine / base - 1) for base, mine in pairs)
    print(
        f"  ours over no program: {statistics.median(gains):+.1f} % "
        f"({gains[0]:+.1f} to {gains[-1]:+.1f}; budget: no loss outside the spread)"
    )


def single_pods(rounds: int, seconds: float) -> None:
    cpus = os.sched_getaffinity(0)
    with pair() as stand:
        address = stand.addresses["ipv4"]
        with udp(stand.client, stand.server, address) as load:
            os.sched_setaffinity(0, {max(cpus)})
            pods.per_skb(
                lambda: load.nanoseconds_per_packet(seconds),
                stand.server.cookie,
                address,
                rounds,
            )
            os.sched_setaffinity(0, cpus)


def start(rounds: int) -> None:
    times, sizes, stages = [], [], []
    for _ in range(rounds):
        begun = time.monotonic()
        with agent("--log-format=json") as (process, address):
            times.append(time.monotonic() - begun)
            fetch(f"{address}/metrics")
            with open(f"/proc/{process.pid}/status") as file:
                line = next(line for line in file if line.startswith("VmRSS"))
            sizes.append(int(line.split()[1]) / 1024)
            stages.append(start_stages(process))
    spread = f"{min(times):.2f} to {max(times):.2f}"
    print(f"\nstart to first sample: {statistics.median(times):.2f} s ({spread})")
    for stage in stages[0]:
        print(f"  {stage:8} {statistics.median(each[stage] for each in stages):.2f}")
    print(f"RSS after a scrape: {statistics.median(sizes):.0f} MiB")


def scrape(rounds: int) -> None:
    links = [link(2 + i, f"eth{2 + i}") for i in range(20)]
    for count, budget in ((20, 20), (600, 100)):
        ours = min(count, len(links))
        netns = [OURS] * ours + [100 + i for i in range(count - ours)]
        rows = [(at, 2 + i, i % 2, 4, 0) for i, at in enumerate(netns)]
        peers = {DeviceId(at, 2 + i): DeviceId(OURS, 2) for i, at in enumerate(netns)}
        with simulated.probes(rows, peers) as probes:
            around = Surroundings(naming=Naming(most=20))
            collector = Collector(probes, lambda: links, OURS, around)
            times, _ = simulated.scrapes(FromSource(collector.snapshot), rounds)
        spread = f"{min(times):.1f} to {max(times):.1f}"
        print(
            f"scrape, {count} rows of {simulated.CPUS} CPUs: "
            f"{statistics.median(times):.1f} ms ({spread}; budget {budget})"
        )


@contextlib.contextmanager
def tracefs() -> Iterator[None]:
    """What the arms that are not ours need; mounted only for them."""
    if os.path.isdir(f"{TRACEFS}/events"):
        yield
        return
    subprocess.run(["mount", "-t", "tracefs", "nodev", TRACEFS], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", TRACEFS], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}")
    with tracefs():
        hooks(given.rounds, given.seconds)
    tcp(given.rounds, max(1, round(given.seconds)))
    single_pods(given.rounds, given.seconds)
    start(given.rounds)
    scrape(given.rounds)
    pods.scrape(given.rounds)


if __name__ == "__main__":
    main()
