# SPDX-License-Identifier: Apache-2.0
"""A disk without room: every command that writes a file says so, and its exit code too.

The disk is a tmpfs of some pages in a mount namespace of its own.
"""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.record.lines import Recording
from tests.lab.test_netperf import RECORDED
from tests.process import COMMAND, nobody
from tests.record.fakes import record
from tests.terminal import terminal
from tests.test_netperf import with_netperf_of
from tests.views.top.fakes import second_by_second

# What is on the disk at the end is copied, since the disk goes with the namespace.
SCRIPT = """
disk=$1 kilobytes=$2 kept=$3; shift 3
mkdir "$disk" "$kept"
mount -t tmpfs -o size="$kilobytes"k none "$disk" || exit 99
[ "$kilobytes" != 4 ] || head -c 4096 /dev/zero >"$disk/full"
cd "$disk" && "$@"; code=$?
rm -f "$disk/full"; cp -r "$disk/." "$kept"
exit $code
"""


class Disk:
    """`prefix` starts a command on it; `kept` is what was there in the end."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        self.kept = folder / "kept"
        self.prefix = (
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", SCRIPT, "sh"),
            *(str(folder / "disk"), str(kilobytes), str(self.kept)),
        )

    def run(self, *argv: str) -> tuple[int, str, str]:
        """Code, stdout and stderr of bigtcp-agent."""
        done = subprocess.run(
            [*self.prefix, COMMAND, *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.kept))
            for path in self.kept.rglob("*")
            if path.is_file()
        )


@pytest.fixture
def full(tmp_path: Path) -> Disk:
    """A file can be made there, and nothing be written into it."""
    return Disk(tmp_path, 4)


@pytest.fixture
def small(tmp_path: Path) -> Disk:
    """With room for some samples of `top`."""
    return Disk(tmp_path, 16)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with second_by_second() as at:
        yield at


def told_at_the_end(path: str) -> str:
    return (
        f"error: {path} has not all samples: recording stopped: no space left on "
        "device\nhint: those before can be replayed; "
    )


def test_top_goes_on_and_fails_at_the_end(url: str, small: Disk) -> None:
    flags = ("--url", url, "--interval", "0.1", "--count", "20", "--record", "a.jsonl")
    code, told, said = small.run("top", *flags)
    assert (code, told.count("node1, Linux")) == (1, 20)
    assert said.startswith("warning: recording stopped: no space left on device\n")
    assert told_at_the_end("a.jsonl") in said
    with Recording(str(small.kept / "a.jsonl")) as recording:
        assert 1 < len(recording) < 21
        assert len(list(recording.samples())) == len(recording)


def test_top_on_a_screen(url: str, small: Disk) -> None:
    flags = ("--url", url, "--interval", "0.1", "--record", "a.jsonl")
    with terminal(*small.prefix, COMMAND, "top", *flags, columns=120) as screen:
        screen.wait_for("recording stopped: no space left on device")
        screen.type("q")
        assert screen.end() == 1
    assert told_at_the_end("a.jsonl").replace("\n", "\r\n") in screen.text


def test_top_does_not_begin_what_it_cannot_record(url: str, full: Disk) -> None:
    code, told, said = full.run("top", "--url", url, "--once", "--record", "a.jsonl")
    assert (code, told) == (1, "")
    assert said.startswith("error: a.jsonl cannot be written: no space left on device")
    assert len(said.splitlines()) == 2
    assert full.files() == []


def test_a_page_of_compare(tmp_path: Path, full: Disk) -> None:
    for name, rates in (("off", [100.0, 101.0]), ("on", [131.0, 130.0])):
        (tmp_path / name).write_text(record(name, rates, 0).json())
    records = (str(tmp_path / "off"), str(tmp_path / "on"))
    code, _, said = full.run("compare", *records, "--html", "page.html")
    assert code == 1
    page = tmp_path / "disk/page.html"
    assert said.startswith(f"error: {page} cannot be written: no space left on device")
    assert len(said.splitlines()) == 2
    assert full.files() == []


def test_a_record_of_netperf(tmp_path: Path, full: Disk) -> None:
    """Which is printed all the same."""
    (tmp_path / "netperf").write_text(
        f"#!/bin/sh\n[ $1 = -V ] && exit\ncat <<END\n{RECORDED}END\n"
    )
    (tmp_path / "netperf").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        server = f"127.0.0.1:{somebody.getsockname()[1]}"
        flags = ("--url", nobody(), "--record", "a.json", "--repeats", "1")
        command = (COMMAND, "netperf", *flags, "--server", server)
        done = with_netperf_of(tmp_path, *full.prefix, *command)
    assert done.returncode == 1
    assert "medians of 1 run" in done.stdout
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    path = tmp_path / "disk/a.json"
    assert error == f"error: {path} cannot be written: no space left on device"
    assert full.files() == []


def test_the_records_of_a_demo(tmp_path: Path, full: Disk) -> None:
    """Which is printed all the same."""
    flags = ("--family", "ipv4", "--rounds", "1", "--record", "records")
    code, told, said = full.run("demo", *flags)
    assert code == 1
    assert "transactions/s" in told
    assert f"error: {tmp_path}/disk/records/" in said
    assert "json cannot be written: no space left on device" in said
    assert full.files() == []
