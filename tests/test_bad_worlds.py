# SPDX-License-Identifier: Apache-2.0
"""What is missing or broken is said in one sentence, with one hint."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.kernel.contract import bpf_directory
from agent.lab.netns import wait_until
from agent.snapshot.model import Family
from tests.kernel.frames import N, frame, ip_packet, send_frames
from tests.process import (
    COMMAND,
    agent,
    bpf_programs,
    fetch,
    loader_of,
    orphans,
    programs_of,
)
from tests.stand import quiet_pair

PACKAGE = Path(__file__).parent.parent / "agent"
RUN = (COMMAND, "run", "--listen", "127.0.0.1:0")


def started(*argv: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv or RUN,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )


def told(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    """Error and hint of a process that ended with this exit code."""
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    error, hint = stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error, hint


@pytest.mark.parametrize(
    ("hide", "message", "remedy"),
    [
        (
            "mount -t tmpfs none /sys/kernel/btf",
            "the kernel's types (btf) cannot be read",
            "CONFIG_DEBUG_INFO_BTF",
        ),
        (
            "for f in /usr/lib/*/libbpf.so.1; do mount --bind /dev/null $f; done",
            "libbpf cannot be loaded",
            "apt install libbpf1",
        ),
        (
            "mount -t tmpfs none /usr/lib/python3/dist-packages/bcc",
            "BCC cannot be imported: its folder is empty",
            "apt install python3-bpfcc",
        ),
        (
            (
                "d=/usr/lib/python3/dist-packages; mount -t tmpfs none /mnt; "
                "cp $d/seccomp*.so /mnt; mount --bind /mnt $d"
            ),
            "No module named 'bcc'",
            "apt install python3-bpfcc",
        ),
        (
            "mount -t tmpfs none /usr/lib/python3/dist-packages",
            "libseccomp's Python module cannot be imported",
            "apt install python3-seccomp",
        ),
        (
            "for f in /usr/lib/*/libbcc.so.0; do mount --bind /dev/null $f; done",
            "BCC cannot be imported",
            "apt install python3-bpfcc",
        ),
    ],
)
def test_what_is_missing_is_named(hide: str, message: str, remedy: str) -> None:
    run = " ".join(RUN)
    process = started("unshare", "--mount", "sh", "-ec", f"{hide}; {run}")
    error, hint = told(process, 3)
    assert message in error
    assert remedy in hint


def broken_copy(folder: Path, old: str, new: str) -> list[str]:
    """A command line that runs the agent with a changed BPF program."""
    shutil.copytree(PACKAGE, folder / "agent")
    shutil.copytree(bpf_directory(), folder / "bpf")
    source = folder / "bpf/skb_length.c"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    return ["env", f"PYTHONPATH={folder}", sys.executable, "-P", "-m", "agent", "-v"]


def test_a_refused_program_shows_what_the_verifier_said(tmp_path: Path) -> None:
    refused = broken_copy(
        tmp_path, "u32 slot =", "*(u64 *)leaf->bytes = 1;\n\tu32 slot ="
    )
    done = subprocess.run(
        [*refused, *RUN[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    error, hint, *log = done.stderr.splitlines()
    assert error == "error: cannot load net_dev_start_xmit: permission denied"
    assert hint.startswith("hint: run `bigtcp-agent -v`")
    assert any("invalid mem access" in line for line in log)
    assert 5 < len(log) <= 25  # its last lines, of hundreds


def test_a_refused_hook_leaves_the_others(tmp_path: Path) -> None:
    """Which is not attached is told; the others count on."""
    record = "return record(skb, skb->dev, HOOK_net_dev_queue, true);"
    refused = broken_copy(tmp_path, record, f"*(u64 *)(u64)skb->len = 1;\n\t{record}")
    at = 'interface="eth0",ip_family="ipv4",scope="node"'
    expected = {
        'bigtcp_probe_attached{hook="net_dev_queue"} 0.0',
        'bigtcp_probe_attached{hook="net_dev_start_xmit"} 1.0',
        'bigtcp_probe_attached{hook="netif_receive_skb"} 1.0',
        f'bigtcp_skb_length_bytes_count{{hook="net_dev_start_xmit",{at}}} {N}.0',
        f'bigtcp_skb_length_bytes_count{{hook="netif_receive_skb",{at}}} {2 * N}.0',
    }
    packet = frame(Family.IPV4, ip_packet(Family.IPV4, 100))
    with (
        quiet_pair() as (node, far),
        agent(within=node, command=refused) as (_, address),
    ):
        send_frames(node, [packet] * N)
        send_frames(far, [packet] * 2 * N)

        def told() -> bool:
            _, text = node.call(lambda: fetch(f"{address}/metrics"))
            return expected <= set(text.splitlines())

        wait_until(told, "the packets in the metrics")


def test_a_program_that_does_not_compile_shows_what_clang_said(tmp_path: Path) -> None:
    broken = broken_copy(tmp_path, "u32 slot =", "u32 slot = nonsense +")
    done = subprocess.run(
        [*broken, *RUN[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: BCC cannot compile skb_length.c")
    assert "skb_length.c" in done.stderr
    assert "use of undeclared identifier 'nonsense'" in done.stderr


def loaded(process: subprocess.Popen[str]) -> bool:
    """True once the agent holds all its programs; False once it has ended."""

    def ended_or_loaded() -> bool:
        return process.poll() is not None or len(programs_of(process.pid)) == 3

    wait_until(ended_or_loaded, "the agent to have loaded or to end")
    return process.poll() is None


def test_a_loader_that_is_killed_is_a_clean_error() -> None:
    """At any moment of its life: the signal is named, nothing stays."""
    before = bpf_programs()
    killed = 0
    for delay in (0, 0.02, 0.05, 0.1, 0.15, 0.2):
        process = started()
        loader = loader_of(process)
        time.sleep(delay)  # the moment is what is varied here
        if loader:
            with contextlib.suppress(ProcessLookupError):  # it has done its work
                os.kill(loader, signal.SIGKILL)
        if loaded(process):  # a fast machine: there was nothing left to disturb
            process.terminate()
            process.communicate()
            assert process.returncode == 0
            continue
        killed += 1
        error, hint = told(process, 3)
        assert "was killed by signal 9" in error
        assert "memory" in hint
    assert killed >= 3
    wait_until(lambda: not orphans(before), "the programs to be gone")


@pytest.mark.parametrize("delay_ms", [0, 50, 100, 200])
def test_an_agent_that_is_killed_while_it_loads_leaves_nothing(delay_ms: int) -> None:
    before = bpf_programs()
    process = started()
    loader = loader_of(process)
    time.sleep(delay_ms / 1000)  # the moment is what is varied here
    process.kill()
    process.communicate()
    wait_until(lambda: not os.path.exists(f"/proc/{loader}"), "the loader to be gone")
    wait_until(lambda: not orphans(before), "the programs to be gone")
