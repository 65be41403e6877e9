# SPDX-License-Identifier: Apache-2.0
"""What real sockets send, cut and merged by the kernel: we count what others count."""

import contextlib
import re
import socket
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from agent.kernel.links import Rtnetlink
from agent.kernel.probes import Probes
from agent.lab.demo import BIG
from agent.lab.netns import Namespace, Stand, pair, wait_until
from agent.snapshot.model import Counters, Family, Hook, Lengths
from tests.kernel.frames import N, gso_frame, send_frames
from tests.kernel.nodes import FAMILIES
from tests.stand import at_rest, row_of, seen, write_sysctl

UDP_SEGMENT = 103
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
ADDRESSES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
ETH_P = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
HEADER = {Family.IPV4: 20, Family.IPV6: 40}
TCP, UDP = 32, 8  # with timestamps


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_gso_is_one_skb_of_many_segments(probes: Probes, family: Family) -> None:
    length = HEADER[family] + UDP + 10_000
    udp = partial(socket.socket, ADDRESSES[family], socket.SOCK_DGRAM)
    with pair() as stand:
        with stand.server.call(udp) as there, stand.client.call(udp) as here:
            there.bind(("", 5000))
            there.settimeout(10)
            here.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
            for _ in range(N):
                here.sendto(bytes(10_000), (stand.addresses[family], 5000))
                for _ in range(10):
                    assert len(there.recv(1500)) == 1000
        # IPv6 talks at any time, and the two are one moment's, segments and all.
        both = at_rest(
            lambda: (
                seen(probes, stand.client, Hook.NET_DEV_START_XMIT, family),
                seen(probes, stand.server, Hook.NETIF_RECEIVE_SKB, family),
            )
        )
    for lengths in both:
        edges, slots = lengths.histogram.edges, lengths.histogram.slots
        own = sum(slots[:2])  # what IPv6 says by itself, in skbs up to 512 bytes
        assert slots[bisect_left(edges, length)] == sum(slots[2:]) == N
        assert lengths.longest == length
        assert lengths.segments == N * 10 + own
        assert 0 <= lengths.histogram.bytes - N * length <= 512 * own


@contextlib.contextmanager
def transfer(stand: Stand, family: Family, size: int) -> Iterator[None]:
    """Send `size` bytes by TCP from client to server, to the end."""
    tcp = partial(socket.socket, ADDRESSES[family])
    with stand.server.call(tcp) as listener:
        listener.bind(("", 5001))
        listener.listen()

        def drain() -> None:
            peer, _ = listener.accept()
            with peer:
                while peer.recv(1 << 20):
                    pass

        reader = threading.Thread(target=drain, daemon=True)
        reader.start()
        with stand.client.call(tcp) as sender:
            sender.connect((stand.addresses[family], 5001))
            block = bytes(1 << 20)
            for _ in range(size >> 20):
                sender.sendall(block)
        reader.join(60)
        assert not reader.is_alive()
    yield


def can_be_big(namespace: Namespace, family: Family) -> bool:
    """IPv4 has BIG TCP since Linux 6.3, which has a size limit for it."""
    sizes = namespace.sizes("eth0")
    return family is Family.IPV6 or sizes.gso_ipv4_max is not None


def count_big_by_iptables(server: Namespace, family: Family) -> Callable[[], int]:
    """As the kernel's own selftest does (big_tcp.sh): above 65,535, not 65,536."""
    command = "iptables" if family is Family.IPV4 else "ip6tables"
    rule = ["-p", "tcp", "-m", "length", "!", "--length", "0:65535"]
    server.run(command, "-t", "raw", "-A", "PREROUTING", *rule)

    def counted() -> int:
        listing = server.run(command, "-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n")
        found = re.search(r"^\s*(\d+)\s+\d+.*length", listing, re.MULTILINE)
        assert found, listing
        return int(found[1])

    return counted


@pytest.mark.parametrize("family", FAMILIES)
def test_iptables_counts_the_same_big_ones(probes: Probes, family: Family) -> None:
    """But for those of exactly 65,536 bytes, which are known here."""
    nobody = "192.0.2.9" if family is Family.IPV4 else "2001:db8::9"
    with pair() as stand:
        stand.set_sizes(BIG)
        counted = count_big_by_iptables(stand.server, family)
        sizes = [65535] * N
        if can_be_big(stand.server, family):
            sizes += [65536, 65537, 65537] * N
        frames = [gso_frame(family, size, 1000, to=nobody) for size in sizes]
        send_frames(stand.client, frames)

        def arrived() -> bool:
            there = seen(probes, stand.server, Hook.NETIF_RECEIVE_SKB, family)
            return there.histogram.above(49152) == len(sizes)

        wait_until(arrived, "the frames to arrive")
        got = seen(probes, stand.server, Hook.NETIF_RECEIVE_SKB, family)
        expected = counted()
    assert expected == got.histogram.above(65536) + sizes.count(65536)
    assert got.histogram.above(65536) == sizes.count(65537)


def counters(namespace: Namespace) -> Counters:
    with contextlib.closing(namespace.call(Rtnetlink)) as links:
        return next(link.counters for link in links.links() if link.name == "eth0")


@pytest.mark.parametrize("family", FAMILIES)
def test_big_tcp_agrees_with_iptables_and_the_interface(
    probes: Probes, family: Family
) -> None:
    """As many big packets of a real connection as iptables counts, and as many
    bytes as the interfaces."""
    with pair() as stand:
        stand.set_sizes(BIG)
        counted = count_big_by_iptables(stand.server, family)
        with transfer(stand, family, 64 << 20):
            received, sent, expected = at_rest(
                lambda: (
                    seen(probes, stand.server, Hook.NETIF_RECEIVE_SKB, family),
                    seen(probes, stand.client, Hook.NET_DEV_START_XMIT, family),
                    counted(),
                )
            )
            tx_bytes = counters(stand.client).tx_bytes
            rx_bytes = counters(stand.server).rx_bytes
        possible = can_be_big(stand.client, family)
    # A packet of exactly 65,536 bytes is not yet big for us, but above 65,535: the
    # last slot below the edge has it, with few others, in most runs with none.
    for histogram in (received.histogram, sent.histogram):
        at_the_edge = histogram.slots[histogram.edges.index(65536)]
        assert 0 <= expected - histogram.above(65536) <= at_the_edge
    assert (sent.longest > 65536) == (expected > 0) == possible
    assert sent.histogram.bytes == pytest.approx(tx_bytes, rel=0.01)
    assert received.histogram.bytes == pytest.approx(rx_bytes, rel=0.01)
    assert sent.segments > 20 * sent.histogram.above(49152) > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mtu", [1500, 9000])
def test_gro_merges_what_was_sent_in_pieces(
    probes: Probes, mtu: int, family: Family
) -> None:
    """Without TSO every wire packet is an skb of its own; GRO makes few of them,
    whose segments are exactly those packets, and whose bytes are theirs without the
    headers of all but the first."""
    with pair(mtu) as stand:
        stand.set_sizes(BIG)
        stand.client.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
        stand.server.run("ethtool", "-K", "eth0", "gro", "on")
        hooks = (
            (stand.client, Hook.NET_DEV_START_XMIT),
            (stand.server, Hook.NAPI_GRO_RECEIVE_ENTRY),
            (stand.server, Hook.NETIF_RECEIVE_SKB),
        )

        def look() -> list[Lengths]:
            reading = probes.read()
            rows = [row_of(reading, *hook, family) for hook in hooks]
            empty = Lengths.empty(reading.edges)
            return [row.lengths if row else empty for row in rows]

        before = at_rest(look)  # IPv6 talks at any time
        with transfer(stand, family, 32 << 20):
            sent, wire, got = (
                now.since(then) for now, then in zip(at_rest(look), before, strict=True)
            )
        possible = can_be_big(stand.server, family)
    assert sent.longest == mtu
    assert sent.segments == sent.histogram.count
    # veth's ring may drop: what entered GRO is what must come out of it
    assert wire.histogram.count <= sent.histogram.count
    assert wire.longest == mtu
    assert got.segments == wire.histogram.count
    merged = got.segments - got.histogram.count
    assert merged > 0
    assert (got.longest > 65536) == possible
    removed = merged * (HEADER[family] + TCP)
    added = got.histogram.bytes - (wire.histogram.bytes - removed)
    # Before Linux 7.0 a big one of IPv6 gets a hop-by-hop header of 8 bytes.
    assert added == 0 or family is Family.IPV6
    assert added in (0, 8 * got.histogram.above(65536))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_header_of_a_message_counts(probes: Probes, family: Family) -> None:
    """Of IPv6 before Linux 7.0 the hop-by-hop header, too, where the message is big:
    a packet socket tells how long each skb is, and with what it begins."""

    def listen() -> socket.socket:
        tap = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P[family])
        )
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 28)
        tap.setblocking(False)
        return tap

    def tcp() -> socket.socket:
        tcp = socket.socket(ADDRESSES[family])
        tcp.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 << 22)
        tcp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp.settimeout(10)
        return tcp

    def received() -> Lengths:
        return seen(probes, stand.server, Hook.NETIF_RECEIVE_SKB, family)

    with contextlib.ExitStack() as stack:
        stand = stack.enter_context(pair())
        # Or cwnd halves between two messages where a reading takes longer than an RTO.
        write_sysctl(stand.client, "ipv4/tcp_slow_start_after_idle", "0")
        tap = stack.enter_context(stand.server.call(listen))
        stand.set_sizes(BIG)
        message = 80_000 if can_be_big(stand.client, family) else 60_000
        listener = stack.enter_context(stand.server.call(tcp))
        listener.bind(("", 5001))
        listener.listen()
        here = stack.enter_context(stand.client.call(tcp))
        here.connect((stand.addresses[family], 5001))
        there = stack.enter_context(listener.accept()[0])

        def in_one() -> bool:
            """As soon as the window has grown."""
            here.sendall(bytes(message))
            there.recv(message, socket.MSG_WAITALL)
            there.sendall(b"!")
            here.recv(1)
            return received().longest >= message

        wait_until(in_one, "a message in one skb")
        got = received()
        taken = []
        header = bytearray(HEADER[family])
        with contextlib.suppress(BlockingIOError):
            while True:
                taken.append((tap.recv_into(header, 0, socket.MSG_TRUNC), header[6]))
    longest, next_header = max(taken)
    hop_by_hop = 8 if family is Family.IPV6 and next_header == 0 else 0
    assert longest == HEADER[family] + hop_by_hop + TCP + message
    assert got.longest == longest
    lengths = [length for length, _ in taken]
    assert got.histogram.above(512) == sum(length > 512 for length in lengths)
    big = sum(length for length in lengths if length > 65536)
    assert got.histogram.big_bytes == big
