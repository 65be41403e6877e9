# SPDX-License-Identifier: Apache-2.0
"""`netperf` as a user starts it: against a real netserver, an agent beside it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands.netperf import _hold
from agent.kernel.probes import Probes
from agent.lab.demo import BIG
from agent.lab.netns import Namespace, Stand, chain, wait_until
from agent.lab.netperf import serve
from agent.record.measured import read
from agent.record.netperf import Record
from agent.snapshot.model import Family, Hook
from agent.typed_json import convert
from tests.lab.test_netperf import RECORDED
from tests.process import COMMAND, agent, child_of, fetch, free_port, nobody
from tests.prometheus import require_valid_metrics
from tests.stand import seen

QUICK = ("-l", "1", "--repeats", "1")
NODE = "192.0.2.126"  # the router, as the client sees it
NODE6 = "2001:db8:1::ffff"


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    """A pod (the client), its node (the router), and a server elsewhere."""
    with chain() as made:
        made.set_sizes(BIG)
        serve(made.server, max(os.sched_getaffinity(0)))
        yield made


def node(stand: Stand) -> Namespace:
    assert stand.uplink
    return stand.uplink[0]


def run(*argv: str, within: Namespace | None = None) -> tuple[int, str, str]:
    command = (COMMAND, "netperf", *argv)
    done = subprocess.run(
        within.command(*command) if within else command,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def running(
    stand: Stand, *argv: str, netperf_of: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """With the netperf of a folder before all others."""
    path = os.environ["PATH"]
    process = subprocess.Popen(
        stand.client.command(
            *(COMMAND, "netperf", "--server", stand.addresses["ipv6"]), *argv
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": f"{netperf_of}:{path}" if netperf_of else path},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_pod_measures_and_its_node_tells(
    stand: Stand, probes: Probes, tmp_path: Path
) -> None:
    hosts, path = tmp_path / "hosts", tmp_path / "record.json"
    hosts.write_text("".join(f"{at} netserver\n" for at in stand.addresses.values()))
    before = seen(probes, stand.client, Hook.NET_DEV_START_XMIT, Family.IPV6)
    with agent(within=node(stand)) as (_, address):
        port = address.rpartition(":")[2]
        url = f"http://{NODE}:{port}"
        named = f"mount --bind {hosts} /etc/hosts && exec {COMMAND} netperf "
        flags = f"--server netserver --url {url} --record {path} --name pod"
        told = stand.client.run(
            "unshare", "--mount", "sh", "-c", f"{named} {flags} -l 1 --repeats 2"
        )
    after = seen(probes, stand.client, Hook.NET_DEV_START_XMIT, Family.IPV6)
    record = convert(json.loads(path.read_text()), Record)
    assert (record.name, record.server) == ("pod", "netserver:12865")
    assert {family: its.address for family, its in record.families.items()} == (
        stand.addresses
    )
    for family, series in record.families.items():
        assert len(series.runs) == 2
        for measured in series.runs:
            for counted in (measured.sent, measured.received):
                assert counted, family
                assert counted.device == "eth0"
                passed = measured.transactions_per_second * measured.elapsed_seconds
                assert counted.bytes == pytest.approx(80_000 * passed, rel=0.05)
                assert counted.big_bytes > 0.9 * counted.bytes
                assert counted.longest > 80_000
    # In turns: what disturbs the machine for a while disturbs both.
    turns = zip(*(its.runs for its in record.families.values()), strict=True)
    ends = [measured.ended for turn in turns for measured in turn]
    assert ends == sorted(ends)
    kernel = after.since(before).histogram
    sent = [measured.sent for measured in record.families["ipv6"].runs]
    assert sum(counted.bytes for counted in sent if counted) == pytest.approx(
        kernel.bytes, rel=0.001
    )
    (device,) = record.devices
    assert (device.name, device.sizes.gso_ipv4_max) == ("eth0", BIG)
    assert record.node
    assert record.node.cilium is None
    assert set(record.node.states) == {"ipv4", "ipv6"}
    assert {each.name for each in record.node.devices} == {"uplink", "downlink"}
    assert "bytes above 64 KiB" in told
    assert max(map(len, told.splitlines())) <= 80


def test_without_an_agent_there_are_results(stand: Stand) -> None:
    server = stand.addresses["ipv4"]
    flags = ("--server", server, "--url", nobody(), "-o", "json", "-r", "1000:500")
    code, told, said = run(*flags, *QUICK, within=stand.client)
    assert code == 0, said
    record = convert(json.loads(told), Record)
    assert record.node is None
    assert record.edges == ()
    assert (record.test.request, record.test.response) == (1000, 500)
    (measured,) = record.families["ipv4"].runs
    assert measured.sent is measured.received is None
    assert measured.transactions_per_second > 100
    assert measured.latency_us.min <= measured.latency_us.p99
    (note,) = [line for line in said.splitlines() if line.startswith("note: ")]
    assert "no agent answers" in note
    code, told, said = run("--server", server, *QUICK, within=stand.client)
    assert code == 0, said
    assert "transactions/s" in told
    assert "64 KiB" not in told


def test_the_results_wait_for_a_scrape(stand: Stand, tmp_path: Path) -> None:
    go, waits = tmp_path / "go", tmp_path / "netperf"
    waits.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] || while [ ! -e {go} ]; do sleep 0.05; done\n'
        f'exec {shutil.which("netperf")} "$@"\n'
    )
    waits.chmod(0o755)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    listen = ("--listen", f"127.0.0.1:{port}")

    def scraped() -> str:
        return stand.client.call(lambda: fetch(f"{url}/metrics"))[1]

    with agent(within=node(stand)) as (_, address):
        # As the chart writes it, where the node's address is of this family.
        flags = ("--url", f"http://{NODE6}:{address.rpartition(':')[2]}")
        more = (*listen, *QUICK, "--hold", "60")
        with running(stand, *flags, *more, netperf_of=tmp_path) as process:
            wait_until(scraped, "the port to be open before the runs are over")
            assert "bigtcp_netperf_transactions_per_second{" not in scraped()
            go.touch()
            wait_until(lambda: "per_second{" in scraped(), "the results")
            text = scraped()
            taken = run("--server", NODE, *listen, within=stand.client)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert taken[0] == 1
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in taken[2]
    assert 'bigtcp_netperf_latency_seconds{ip_family="ipv6",statistic="p99"}' in text
    assert 'bigtcp_netperf_run_timestamp_seconds{ip_family="ipv6"}' in text
    (big,) = [
        line for line in text.splitlines() if line.startswith("bigtcp_netperf_big_byt")
    ]
    assert float(big.split()[1]) > 0.9
    require_valid_metrics(text)


def test_it_holds_only_so_long(stand: Stand) -> None:
    with running(stand, *QUICK, "--listen", "127.0.0.1:0", "--hold", "1") as process:
        assert process.wait(60) == 0


def test_who_has_the_results_may_end_it_at_once() -> None:
    """And may say so twice."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        _hold(600, lambda: signal.raise_signal(signal.SIGTERM))
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


@pytest.mark.parametrize("number", ENDS)
def test_nothing_is_left_behind(
    stand: Stand, number: signal.Signals, tmp_path: Path
) -> None:
    """No netperf and, if it can be helped, no part of a record."""
    cpu = max(os.sched_getaffinity(0))
    flags = ("-l", "60", "--cpu", str(cpu), "--record", str(tmp_path / "a.json"))
    with running(stand, *flags) as process:
        child = wait_until(lambda: child_of(process), "netperf to run")
        wait_until(lambda: _name(child) == "netperf", "netperf to run")
        assert os.sched_getaffinity(child or 0) == {cpu}
        process.send_signal(number)
        code = process.wait(60)
    wait_until(lambda: _name(child) != "netperf", "netperf to end")
    assert code == (-9 if number == signal.SIGKILL else 130)
    assert bool(list(tmp_path.iterdir())) == (number == signal.SIGKILL)


def test_after_nohup_it_goes_on(stand: Stand) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running(stand, "-l", "60") as process:
            wait_until(lambda: _name(child_of(process)) == "netperf", "netperf to run")
            status = Path(f"/proc/{process.pid}/status").read_text()
            (ignored,) = re.findall(r"SigIgn:\s+(\w+)", status)
            assert int(ignored, 16) & 1 << signal.SIGHUP - 1
    finally:
        signal.signal(signal.SIGHUP, before)


def with_netperf_of(folder: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    """Run with the netperf of a folder before all others."""
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        timeout=60,
    )


def test_a_run_that_fails_costs_only_itself(tmp_path: Path) -> None:
    """Of five: two are measured and kept, and the command fails."""
    (tmp_path / "netperf").write_text(
        f"#!/bin/sh\n[ $1 = -V ] && exit\ncd {tmp_path} && echo >>runs\n"
        "[ $(wc -l <runs) -lt 3 ] || { echo the line is cut >&2; exit 1; }\n"
        f"cat <<END\n{RECORDED}END\n"
    )
    (tmp_path / "netperf").chmod(0o755)
    path = tmp_path / "record.json"
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        server = f"127.0.0.1:{somebody.getsockname()[1]}"
        flags = ("--url", nobody(), "--record", str(path), "--server", server)
        done = with_netperf_of(tmp_path, COMMAND, "netperf", *flags)
    assert done.returncode == 1
    assert "medians of 2 of 5 runs of 3 s" in " ".join(done.stdout.split())
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert error == "error: netperf to 127.0.0.1 failed: the line is cut"
    record = convert(json.loads(path.read_text()), Record)
    assert len(record.families["ipv4"].runs) == 2
    assert read(str(path)).about["runs"] == "2 of 5"


@pytest.mark.parametrize("redirected", ["> /dev/full", "| true"])
def test_a_stdout_that_refuses_costs_no_record(tmp_path: Path, redirected: str) -> None:
    (tmp_path / "netperf").write_text(
        f"#!/bin/sh\n[ $1 = -V ] && exit\ncat <<END\n{RECORDED}END\n"
    )
    (tmp_path / "netperf").chmod(0o755)
    path = tmp_path / "record.json"
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        server = f"127.0.0.1:{somebody.getsockname()[1]}"
        flags = f"--url {nobody()} --record {path} --server {server} --repeats 1"
        script = f"set -o pipefail; {COMMAND} netperf {flags} {redirected}"
        done = with_netperf_of(tmp_path, "bash", "-c", script)
    assert done.returncode == 1
    assert ("error: no space left on device\n" in done.stderr) == (
        redirected == "> /dev/full"
    )
    assert len(convert(json.loads(path.read_text()), Record).families["ipv4"].runs) == 1


def _name(pid: int | None) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("flags", "code", "why"),
    [
        (("--server", "192.0.2.2"), 1, "no netserver at 192.0.2.2 port 12865: "),
        (("--server", "127.0.0.1:1"), 1, "port 1: connection refused"),
        (("--server", "no.such.name.invalid"), 1, "no.such.name.invalid is not known"),
        (("--server", "127.0.0.1", "--family", "ipv6"), 1, "has no ipv6 address"),
        (("--server", "127.0.0.1:x"), 2, "is no server"),
        (("--server", "127.0.0.1:70000"), 2, "is no server"),
        (("--server", "::1", "--url", "ftp://x"), 2, "is no address of an agent"),
        (("--server", "::1", "-r", "80000"), 2, "is no pair of sizes"),
        (("--server", "::1", "-r", "0:80000"), 2, "is no pair of sizes"),
        (("--server", "::1", "-l", "0.5"), 2, "not a valid integer range"),
        (("--server", "::1", "--cpu", "9999"), 2, "is no CPU that we may use"),
        (("--server", "::1", "--listen", "x"), 2, "is no address"),
        (("--server", "::1", "--record", "/dev/null"), 1, "is there and no file"),
        (("--server", "::1", "--record", "/none/a"), 1, "cannot be written"),
        ((), 2, "Missing option '--server'"),
    ],
)
def test_bad_input(flags: tuple[str, ...], code: int, why: str, stand: Stand) -> None:
    found, told, said = run(*flags, within=node(stand))
    error, hint = said.splitlines()
    assert (found, told) == (code, "")
    assert error.startswith("error: ")
    assert why in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (None, "netperf is not installed"),
        ("echo THROUGHPUT=1; echo THROUGHPUT_UNITS=Trans/s", "did not print MIN_LAT"),
        ("echo no such host >&2; exit 3", "failed: no such host"),
        # -x is to this one what -j is to netperf 2.4: all its usage, and code 1.
        ("exec /usr/bin/netperf -x", "is too old: /usr/bin/netperf: invalid option"),
        ("kill -9 $$", "failed: code -9"),
    ],
)
def test_a_netperf_that_is_none(tmp_path: Path, script: str | None, why: str) -> None:
    for tool_of_ours in ("setpriv", "sh"):
        (tmp_path / tool_of_ours).symlink_to(f"/usr/bin/{tool_of_ours}")
    if script:
        (tmp_path / "netperf").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "netperf").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        done = subprocess.run(
            [
                *(COMMAND, "netperf", "--url", nobody()),
                *("--server", f"127.0.0.1:{somebody.getsockname()[1]}"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PATH": str(tmp_path)},
            timeout=60,
        )
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert why in error
