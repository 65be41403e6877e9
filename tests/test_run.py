# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent run` from start to end, wished or not."""

import os
import signal
import subprocess
import time

import pytest

from agent.lab.netns import wait_until
from tests.process import COMMAND, agent, bpf_programs, fetch


def test_pages() -> None:
    with agent() as (_, address):
        assert fetch(f"{address}/livez") == (200, "ok\n")
        assert fetch(f"{address}/nowhere")[0] == 404
        status, page = fetch(f"{address}/")
        assert status == 200
        assert 'href="metrics"' in page
        status, text = fetch(f"{address}/metrics")
        assert status == 200
        for hook in ("net_dev_start_xmit", "netif_receive_skb", "net_dev_queue"):
            assert f'bigtcp_probe_attached{{hook="{hook}"}} 1.0' in text


def test_sigterm_ends_within_a_second() -> None:
    with agent() as (process, _):
        begun = time.monotonic()
        process.terminate()
        assert process.wait(5) == 0
        assert time.monotonic() - begun < 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_in_the_kernel(number: signal.Signals) -> None:
    before = bpf_programs()
    with agent() as (process, _):
        assert len(bpf_programs() - before) == 3
        process.send_signal(number)
        process.wait(5)
        wait_until(lambda: not bpf_programs() - before, "the programs to be gone")


def test_a_second_agent_on_the_port_says_so() -> None:
    with agent() as (_, address):
        port = address.rpartition(":")[2]
        done = subprocess.run(
            [COMMAND, "run", "--listen", f":{port}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: cannot listen on :{port}: address")
        assert "hint: another agent runs here" in done.stderr


CAPABLE = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all")


def test_two_capabilities_are_enough() -> None:
    """uid 0 as a container has it: BPF and PERFMON, nothing else."""
    bounded = (*CAPABLE, "--bounding-set=-all,+bpf,+perfmon", "--no-new-privs")
    with agent("--hooks", "net_dev_start_xmit", prefix=bounded) as (process, address):
        with open(f"/proc/{process.pid}/status") as file:
            status = file.read()
        assert "CapEff:\t000000c000000000" in status
        assert fetch(f"{address}/readyz")[0] == 200


@pytest.mark.parametrize("granted", ["", ",+bpf"])
def test_too_few_capabilities_are_named(granted: str) -> None:
    before = bpf_programs()
    done = subprocess.run(
        [*CAPABLE, f"--bounding-set=-all{granted}", COMMAND, "run"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 2
    assert "operation not permitted" in done.stderr
    assert "capabilities BPF and PERFMON" in done.stderr
    assert not bpf_programs() - before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hooks", "net_dev"], "there is no hook 'net_dev'"),
        (["--hooks", ","], "names no hook"),
        (["--listen", "nonsense"], "'nonsense' is no address"),
        (["--listen", ":70000"], "':70000' is no address"),
        (["--interfaces", "eth0,!"], "no pattern"),
        (["--max-interfaces", "-1"], "--max-interfaces"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_bad_flags(flags: list[str], message: str) -> None:
    done = subprocess.run(
        [COMMAND, "run", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


def test_the_wrong_bcc_is_recognised(tmp_path: os.PathLike[str]) -> None:
    """PyPI has another project under this name."""
    with open(f"{tmp_path}/bcc.py", "w") as file:
        file.write("answer = 42\n")
    done = subprocess.run(
        [COMMAND, "run"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 3
    assert "not BCC" in done.stderr
    assert "apt install python3-bpfcc" in done.stderr


def test_a_bcc_py_where_we_stand_is_not_imported(tmp_path: os.PathLike[str]) -> None:
    with open(f"{tmp_path}/bcc.py", "w") as file:
        file.write("raise SystemExit('hijacked')\n")
    done = subprocess.run(
        [COMMAND, "run", "--listen", "203.0.113.1:1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "cannot listen on 203.0.113.1:1" in done.stderr
