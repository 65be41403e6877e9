# SPDX-License-Identifier: Apache-2.0
"""However a cluster ends, nothing of it stays. (First of the folder: the others
share one cluster, and a machine has room for one.)"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.lab.netns import wait_until
from tests.cluster import cluster as clusters
from tests.cluster.processes import find


def _namespaces() -> str:
    """Every namespace; "" where lsns lost a process that ended while it looked."""
    done = subprocess.run(
        ["lsns", "--noheadings", "--raw", "--output", "NS,TYPE,COMMAND"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode else done.stdout


def traces() -> dict[str, set[str]]:
    """What programs of a cluster could leave on a machine."""
    namespaces = wait_until(_namespaces, "lsns")
    ours = ("containerd", "kubelet", "cilium", "netserver", "kube-", "etcd")
    return {
        "mounts": set(Path("/proc/mounts").read_text().splitlines()),
        "devices": set(os.listdir("/sys/class/net")),
        "/run": set(os.listdir("/run")),
        "/var/lib": set(os.listdir("/var/lib")),
        "/etc": set(os.listdir("/etc")),
        "namespaces": {
            line for line in namespaces.splitlines() if any(x in line for x in ours)
        },
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").rglob("bigtcp*")},
    }


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    before = traces()
    try:
        yield
    finally:
        clusters.down()
    assert clusters.remains() == []
    # The kernel ends what a namespace holds after the first process is gone.
    with contextlib.suppress(AgentError):
        wait_until(lambda: traces() == before, "all to be gone")
    assert traces() == before  # which shows what differs


def _begun(code: str, *, log: str) -> "subprocess.Popen[bytes]":
    """`up` in a process of its own, at the moment when it has come to `log`: that is
    there before what writes to it.
    """
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    path = clusters.STATE / "log" / log

    def there() -> bool:
        assert process.poll() is None
        return path.exists() and bool(find("tests.cluster.host"))

    wait_until(there, log, 120)
    return process


@pytest.mark.parametrize("log", ["host.log", "etcd.log", "kubelet-node1.log"])
@pytest.mark.usefixtures("nothing_stays")
def test_down_after_up_was_killed(log: str) -> None:
    """Its host lives on and goes on starting things; `down` ends it anywhere."""
    up = "from tests.cluster import cluster; cluster.up(with_us=False)"
    process = _begun(up, log=log)
    process.kill()
    process.wait()
    clusters.down()


@pytest.mark.usefixtures("nothing_stays")
def test_a_cluster_dies_with_its_holder() -> None:
    up = "from tests.cluster import cluster; cluster.up(with_us=True)"
    process = _begun(up, log="kubelet-node1.log")
    process.kill()
    process.wait()
    wait_until(lambda: not find("tests.cluster.host"), "the kernel to end it")


@pytest.mark.usefixtures("nothing_stays")
def test_a_second_up_takes_the_first_down() -> None:
    first = _begun(
        "from tests.cluster import cluster; cluster.up(with_us=False)", log="etcd.log"
    )
    first.kill()
    first.wait()
    hosts = find("tests.cluster.host")
    second = clusters.up(with_us=True)
    with clusters.attached() as cluster:
        assert "node2" in cluster.kubectl("get", "nodes")
        assert not set(hosts) & set(find("tests.cluster.host"))
    clusters.down()
    second.wait()
