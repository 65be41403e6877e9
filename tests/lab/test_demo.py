# SPDX-License-Identifier: Apache-2.0
"""The demo as users run it; and what is left of it when it is killed."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from agent.lab.demo import BIG, LEGACY
from agent.lab.netns import wait_until
from agent.record import netperf
from tests.process import COMMAND, bpf_programs


def namespaces() -> set[int]:
    """Inodes of the network namespaces that any process stands in."""
    found = set()
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                found.add(os.stat(f"/proc/{pid}/ns/net").st_ino)
            except OSError:
                continue  # it has just ended
    return found


def demo(*flags: str) -> dict[str, list[dict[str, float]]]:
    done = subprocess.run(
        [COMMAND, "demo", "-o", "json", "--rounds", "1", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema"] == "bigtcp.demo/v1"
    assert not any(result["unrecorded"].values())
    families: dict[str, list[dict[str, float]]] = result["families"]
    return families


def test_big_tcp_on_means_big_packets() -> None:
    families = demo()
    assert set(families) == {"ipv4", "ipv6"}
    for off, on in families.values():
        assert off["big_bytes_share"] == 0
        assert off["longest_bytes"] <= 65536
        assert on["big_bytes_share"] > 0.9
        assert on["longest_bytes"] > 80_000
        assert on["segments_per_skb"] > off["segments_per_skb"]


def test_a_record_for_each_way(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    measured = demo("--topology", "router", "--record", str(folder))
    for number, (name, size) in enumerate((("off", LEGACY), ("cut", BIG), ("on", BIG))):
        record = netperf.Record.of(json.loads((folder / f"{name}.json").read_text()))
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


def test_an_uplink_at_64_kib_is_named() -> None:
    off, cut, on = demo("--topology", "router", "--family", "ipv4")["ipv4"]
    assert off["segmented_in_software"] == on["segmented_in_software"] == 0
    assert cut["segmented_in_software"] > 100
    assert cut["big_bytes_share"] > 0.9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(number: signal.Signals) -> None:
    spaces, programs = namespaces(), bpf_programs()
    process = subprocess.Popen(
        [COMMAND, "demo", "--seconds", "60"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(namespaces() - spaces) == 2, "the demo's namespaces", 30)
        wait_until(lambda: _runs("netperf"), "netperf to run", 30)
        process.send_signal(number)
        code = process.wait(10)
    finally:
        process.kill()
        process.wait()
    # A namespace is there as long as anything runs in it: netserver is gone, too.
    wait_until(lambda: not namespaces() - spaces, "the namespaces to be gone")
    wait_until(lambda: not bpf_programs() - programs, "the programs to be gone")
    assert code == (-9 if number == signal.SIGKILL else 130)


def _runs(name: str) -> bool:
    done = subprocess.run(["pgrep", "-x", name], capture_output=True, check=False)
    return done.returncode == 0


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
