# SPDX-License-Identifier: Apache-2.0
"""The demo as users run it; and what is left of it when it is killed."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.lab.demo import BIG, LEGACY
from agent.lab.netns import wait_until
from agent.record import netperf
from agent.record.measured import read
from agent.typed_json import convert
from tests.process import COMMAND, bpf_programs, programs_of


def namespaces(pids: Iterable[int] | None = None) -> set[int]:
    """Inodes of the network namespaces that these processes stand in, or any."""
    found = set()
    if pids is None:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            found.add(os.stat(f"/proc/{pid}/ns/net").st_ino)
    return found


def children(pid: int) -> dict[str, int]:
    """Of a process, by name; of several of one name the last."""
    listed = subprocess.run(
        ["ps", "-o", "comm=,pid=", "--ppid", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return {name: int(its) for name, its in map(str.split, listed.splitlines())}


def demo(*flags: str) -> dict[str, list[dict[str, Any]]]:
    done = subprocess.run(
        [COMMAND, "demo", "-o", "json", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema"] == "bigtcp.demo/v1"
    # For memory others on this machine compete, too.
    missed = {each for each, count in result["unrecorded"].items() if count}
    assert missed <= {"no_memory"}
    families: dict[str, list[dict[str, Any]]] = result["families"]
    for family, arms in families.items():  # what it said meanwhile
        assert f"{family}: warming up\n" in done.stderr
        for arm in arms:
            runs = len(arm["trials"])
            last = f"{family}: BIG TCP {arm['name']}, run {runs} of {runs}\n"
            assert last in done.stderr
    return families


def test_big_tcp_on_means_big_packets() -> None:
    families = demo("--rounds", "1")
    assert set(families) == {"ipv4", "ipv6"}
    for off, on in families.values():
        assert off["big_bytes_share"] == 0
        assert off["longest_bytes"] <= 65536
        assert on["big_bytes_share"] > 0.9
        assert on["longest_bytes"] > 80_000
        assert on["segments_per_skb"] > off["segments_per_skb"]


def test_a_record_for_each_way(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    measured = demo("--topology", "router", "--rounds", "1", "--record", str(folder))
    for number, (name, size) in enumerate((("off", LEGACY), ("cut", BIG), ("on", BIG))):
        record = convert(
            json.loads((folder / f"{name}.json").read_text()), netperf.Record
        )
        assert record.name == name
        assert set(record.families) == set(measured) == {"ipv4", "ipv6"}
        for family, series in record.families.items():
            (run,) = series.runs
            arm = measured[family][number]
            assert run.transactions_per_second == arm["transactions_per_second"]
            assert run.sent
            assert run.sent.longest == arm["longest_bytes"]
            assert run.received
            assert run.received.bytes > run.transactions_per_second * 80_000
        sizes = {device.name: device.sizes for device in record.devices}
        assert sizes["eth0"].gso_max == sizes["eth0"].gso_ipv4_max == size
        assert sizes["router/uplink"].gso_max == (BIG if name == "on" else LEGACY)
    done = subprocess.run(
        [COMMAND, "demo", "--topology", "router", "--record", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "off.json exists already" in done.stderr


def test_a_stdout_that_refuses_costs_no_record(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [
                *(COMMAND, "demo", "--family", "ipv4", "--rounds", "1"),
                *("--record", str(tmp_path / "records")),
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "error: no space left on device\n" in done.stderr
    for way in ("off", "on"):
        assert read(str(tmp_path / "records" / f"{way}.json")).families


def test_an_uplink_at_64_kib_is_slower_than_big_tcp_off() -> None:
    """By half here; what else the machine does only slows: the best of three."""
    flags = ("--topology", "router", "--family", "ipv4", "--rounds", "3")
    off, cut, on = demo(*flags)["ipv4"]
    assert off["segmented_in_software"] == on["segmented_in_software"] == 0
    assert cut["segmented_in_software"] > 100
    assert cut["big_bytes_share"] > 0.9
    assert max(cut["trials"]) < max(off["trials"])


@contextlib.contextmanager
def running() -> Iterator[subprocess.Popen[str]]:
    """A demo whose netperf runs. Nothing of it may be there afterwards."""
    process = subprocess.Popen(
        [COMMAND, "demo", "--seconds", "60"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    spaces: set[int] = set()
    programs: set[int] = set()
    try:
        wait_until(lambda: "netperf" in children(process.pid), "netperf to run")
        spaces = namespaces(children(process.pid).values())
        assert len(spaces) == 2
        programs = programs_of(process.pid)
        assert len(programs) == 3
        yield process
    finally:
        process.kill()
        process.communicate()
    # A namespace is there as long as anything runs in it: netserver is gone, too.
    wait_until(lambda: not spaces & namespaces(), "the namespaces to be gone")
    wait_until(lambda: not programs & bpf_programs(), "the programs to be gone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_nothing_is_left_behind(
    kill: Callable[[int, int], None], number: signal.Signals
) -> None:
    """Ctrl-C in a terminal goes to all of its processes."""
    with running() as process:
        kill(process.pid, number)
        process.communicate(timeout=60)
        assert process.returncode == (-9 if number == signal.SIGKILL else 130)


@pytest.mark.parametrize("name", ["netperf", "sleep"])
def test_a_child_that_is_killed_is_a_clean_end(name: str) -> None:
    """Sleep holds a namespace: it stays until netperf ends."""
    with running() as process:
        os.kill(children(process.pid)[name], signal.SIGKILL)
        if name == "sleep":
            process.terminate()
        _, said = process.communicate(timeout=60)
        assert process.returncode == (1 if name == "netperf" else 130)
        assert ("error: netperf to 192.0.2.2 failed" in said) == (name == "netperf")
        assert "Traceback" not in said


def test_without_netperf() -> None:
    done = subprocess.run(
        [COMMAND, "demo"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": "/nonexistent"},
    )
    assert done.returncode == 1
    assert "error: netperf is not installed" in done.stderr
    assert "hint: apt install netperf" in done.stderr
