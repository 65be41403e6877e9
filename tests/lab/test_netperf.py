# SPDX-License-Identifier: Apache-2.0
"""netperf's output is read key by key, and what is missing is named."""

import contextlib
import json
import socket
import threading
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.lab import netperf, netserver
from agent.lab.netns import chain, wait_until
from agent.lab.netperf import parse
from agent.snapshot.experiment import Latency, Netperf, TcpRr
from agent.snapshot.model import Family

# Recorded from netperf 2.7.0 with -P 0 -j and -k.
RECORDED = """\
THROUGHPUT=18687.41
THROUGHPUT_UNITS=Trans/s
MIN_LATENCY=26
MEAN_LATENCY=53.47
P50_LATENCY=28
P90_LATENCY=30
P99_LATENCY=115
MAX_LATENCY=70964
STDDEV_LATENCY=641.55
ELAPSED_TIME=1.00
"""


def test_recorded_answer() -> None:
    latency = Latency(26, 53.47, 28, 30, 115, 70964, 641.55)
    assert parse(RECORDED) == Netperf(18687.41, latency, 1.0)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "did not print THROUGHPUT, "),
        (RECORDED.replace("Trans/s", "10^6bits/s"), "not transactions"),
        (RECORDED.replace("=26", "=fast"), "no number"),
        (RECORDED.replace("=53.47", "=nan"), "no number: MEAN_LATENCY=nan"),
    ],
)
def test_anything_else_is_refused(output: str, message: str) -> None:
    with pytest.raises(AgentError, match=message):
        parse(output)


@pytest.mark.parametrize("line", RECORDED.splitlines(keepends=True))
def test_every_key_is_required(line: str) -> None:
    """netperf leaves out those that it does not know, and says nothing."""
    key = line.partition("=")[0]
    with pytest.raises(AgentError, match=f"did not print {key}$") as caught:
        parse(RECORDED.replace(line, ""))
    assert caught.value.hint.startswith("use netperf 2.7 or newer; it said: ")


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netperf, "_GRACE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(AgentError, match="did not end in 1 s"):
            netperf.run(TcpRr(1, 1, 1, 1), "127.0.0.1", port)


def processes_in(netns: int) -> list[str]:
    """Those in a network namespace, by their numbers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "ns/net").stat().st_ino == netns:
                found.append(process.name)
    return found


def test_a_server_ends_with_its_namespace_in_the_middle_of_a_run() -> None:
    """A child of it would wait for ever: the router is gone before the client is."""
    with chain() as stand:
        netperf.serve(stand.server, 0)
        netns = stand.server.inode
        stand.client.start(*netperf.tcp_rr_command(stand.addresses["ipv4"], 60))

        def received() -> bool:
            (link,) = json.loads(
                stand.server.run("ip", "-j", "-s", "link", "show", "eth0")
            )
            return int(link["stats64"]["rx"]["bytes"]) > 10_000_000

        wait_until(received, "traffic")
    wait_until(lambda: processes_in(netns) == [], "the namespace to be empty")


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netperf, "_VERSION_SECONDS", 60)
    assert netperf.version().startswith("2.")


def test_a_name_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netserver, "_NAME_SECONDS", 0.2)
    never = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        never.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(AgentError, match="no name server told of x"):
        netserver.addresses("x", (Family.IPV4,))
    never.set()


def test_addresses_of_the_families_that_are_wanted() -> None:
    both = (Family.IPV4, Family.IPV6)
    assert netserver.addresses("127.0.0.1", both) == {Family.IPV4: "127.0.0.1"}
    assert netserver.addresses("::1", both) == {Family.IPV6: "::1"}
    with pytest.raises(AgentError, match="::1 has no ipv4 address"):
        netserver.addresses("::1", (Family.IPV4,))
    with pytest.raises(AgentError, match="is not known"):
        netserver.addresses("a" * 70 + ".example", both)
