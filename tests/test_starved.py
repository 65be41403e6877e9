# SPDX-License-Identifier: Apache-2.0
"""A node whose CPUs are taken: the agent gets what the chart requests, and no more.

That is a quota here, so the test takes no CPU from anybody. The scheduler's weights,
which the kubelet makes of a request, give the same where all else runs all the time.
"""

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.kernel.loader import PATIENCE_SECONDS
from agent.lab.netns import wait_until
from tests.process import COMMAND, fetch, free_port

CHART = Path(__file__).parent.parent / "charts/bigtcp-agent"
_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # us, the default of the kernel and of Kubernetes


def requested() -> int:
    """CPU, in thousandths of one."""
    values: Any = yaml.safe_load((CHART / "values.yaml").read_text())
    return int(values["resources"]["requests"]["cpu"].removesuffix("m"))


def probe(name: str) -> dict[str, int]:
    """The numbers of a probe in the chart's template, which is no YAML by itself."""
    template = (CHART / "templates/daemonset.yaml").read_text()
    _, _, text = template.partition(f"{name}:\n")
    text = re.split(r"\n {10}\S", text, maxsplit=1)[0]
    return {
        key: int(at) for key, at in re.findall(r"(\w+): (\d+)$", text, re.MULTILINE)
    }


def budget() -> int:
    """Seconds until the kubelet kills an agent that is not ready."""
    startup = probe("startupProbe")
    return startup["periodSeconds"] * startup["failureThreshold"]


@pytest.fixture
def starved() -> Iterator[Path]:
    """The cgroup.procs of a cgroup with that quota, of version 2 or 1."""
    second = (_ROOT / "cgroup.controllers").exists()
    name = f"bigtcp-starved-{time.monotonic_ns()}"
    quota = requested() * _PERIOD // 1000
    if second:
        (_ROOT / "cgroup.subtree_control").write_text("+cpu")
    folder = _ROOT / name if second else _ROOT / "cpu" / name
    folder.mkdir()

    def gone() -> bool:
        with contextlib.suppress(OSError):  # whose processes are just dying
            folder.rmdir()
        return not folder.exists()

    try:
        if second:
            (folder / "cpu.max").write_text(f"{quota} {_PERIOD}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))
        yield folder / "cgroup.procs"
    finally:
        wait_until(gone, "the cgroup to be empty")


def test_a_start_with_no_more_than_is_requested(starved: Path) -> None:
    """It is ready before the kubelet would kill it, and then stays alive for it."""
    port = free_port()
    enter = f'echo $$ >{starved}; exec "$@"'
    with subprocess.Popen(
        ["sh", "-ec", enter, "sh", COMMAND, "run", "--listen", f":{port}"],
        stderr=subprocess.DEVNULL,
    ) as process:
        try:

            def ready() -> bool:
                assert process.poll() is None
                time.sleep(0.2)  # what it answers costs it CPU, too
                return fetch(f"http://127.0.0.1:{port}/readyz")[0] == 200

            # Half of it: other machines are slower.
            wait_until(ready, "it to be ready", budget() / 2)
            stat = (starved.parent / "cpu.stat").read_text()
            assert int(re.findall(r"^nr_throttled (\d+)$", stat, re.MULTILINE)[0]) > 0
            asked = time.monotonic()
            assert fetch(f"http://127.0.0.1:{port}/livez")[0] == 200
            assert time.monotonic() - asked < probe("livenessProbe")["timeoutSeconds"]
        finally:
            process.kill()


def test_the_loader_gives_up_first() -> None:
    """With a sentence of its own, when half of the kubelet's time is over: the rest of
    a start takes as long.
    """
    assert budget() / 2 >= PATIENCE_SECONDS
