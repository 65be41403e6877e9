# SPDX-License-Identifier: Apache-2.0
"""The node with Cilium's agent leaves nothing behind, and the machine as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.lab.netns import wait_until
from tests.cilium.node import cilium_node, termination_message

_UNTIL_KILLED = """
import sys
from pathlib import Path
from tests.cilium.node import cilium_node
with cilium_node("1.20.2", Path(sys.argv[1])) as node:
    node.launch()
    print(node.cgroup, node.holder.pid, flush=True)
    node.wait_for_end(600)
"""


def of_the_machine() -> dict[str, str]:
    """What Cilium's agent would write on a machine that is a node."""
    sysctls = ("unprivileged_bpf_disabled", "timer_migration")
    found = {name: Path("/proc/sys/kernel", name).read_text() for name in sysctls}
    pinned = Path("/sys/fs/bpf")
    found["pinned"] = " ".join(sorted(str(path) for path in pinned.glob("**/*")))
    return found


def test_the_machine_stays_as_it_was(tmp_path: Path) -> None:
    before = of_the_machine()
    with cilium_node("1.20.2", tmp_path) as node:
        node.start()
        inside = node.run("cat", "/proc/sys/net/ipv4/conf/cilium_host/rp_filter")
        assert inside == "0\n"  # as the agent sets it
        cgroup = node.cgroup
        assert (cgroup / "cgroup.procs").read_text().strip()
        assert of_the_machine() == before
    assert not cgroup.exists()
    assert of_the_machine() == before


def test_nothing_is_left_after_sigkill(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            cgroup, holder = process.stdout.readline().split()
            processes = Path(cgroup, "cgroup.procs")
            wait_until(lambda: processes.read_text().count("\n") > 1, "the agent")
        finally:
            process.kill()
    wait_until(lambda: not Path(cgroup).exists(), "the cgroup to be gone")
    with pytest.raises(OSError, match=holder):  # gone, or a zombie: without namespaces
        os.readlink(f"/proc/{holder}/ns/net")


def test_a_kubelet_keeps_the_end_of_a_log() -> None:
    assert termination_message("one\ntwo\n") == "one\ntwo\n"
    many = "".join(f"{number}\n" for number in range(100))
    assert termination_message(many) == many[many.index("20\n") :]
    assert termination_message("x" * 3000) == "x" * 2048
