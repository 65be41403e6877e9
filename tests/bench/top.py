# SPDX-License-Identifier: Apache-2.0
"""What a screen of `top` costs: `python -m tests.bench.top`.

300 rows that all change, of an agent that runs in a process of its own; then with
probes of its own, for which no agent may run on this node.
"""

import argparse
import multiprocessing
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from agent.lab.netns import wait_until
from tests.process import COMMAND, fetch, free_port
from tests.terminal import terminal
from tests.views.top.fakes import FakeAgent, Flow, flows, picture

ROWS = 300
COLUMNS, LINES = 120, 48


def _flows(rows: int) -> list[Flow]:
    its = flows()
    return its + [
        Flow(f"lxc{i:04x}", ifindex=100 + i, small=100 + i, big=i * 37 % 500)
        for i in range(rows - len(its))
    ]


def serve(port: int) -> None:
    """An agent whose rows all change, until it is killed."""
    rows, began = _flows(ROWS), time.time() - 1

    def answer() -> dict[str, Any]:
        return picture(time.time() - began, rows, started=began)

    with FakeAgent(answer, port).serving():
        threading.Event().wait()


def first_frame(*flags: str, row: str) -> float:
    """Seconds from the start to a screen with this text."""
    with terminal(COMMAND, "top", *flags, columns=COLUMNS, lines=LINES) as screen:
        seconds = screen.wait_for(row)
        screen.type("q")
        assert screen.end() == 0, screen.text
    return seconds


def cost(url: str, seconds: float) -> tuple[float, float]:
    """Share of a core and RSS in MiB, once it runs."""
    flags = ("--url", url, "--interval", "1")
    with terminal(COMMAND, "top", *flags, columns=COLUMNS, lines=LINES) as screen:
        screen.wait_for("lxc")
        screen.drain(3)
        pid = screen.process.pid
        before = _ticks(pid)
        screen.drain(seconds)
        share = (_ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / seconds
        status = Path(f"/proc/{pid}/status").read_text()
        screen.type("q")
        assert screen.end() == 0, screen.text
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return share, int(rss.split()[1]) / 1024


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _times(label: str, budget: float, runs: list[float]) -> None:
    print(
        f"{label}: {statistics.median(runs):.2f} s "
        f"({min(runs):.2f} to {max(runs):.2f}; budget {budget})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="to measure CPU for")
    parser.add_argument("--rounds", type=int, default=7, help="of the first frame")
    chosen = parser.parse_args()
    port = free_port()
    agent = multiprocessing.get_context("spawn").Process(target=serve, args=(port,))
    agent.start()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: fetch(f"{url}/api/snapshot")[0] == 200, "the agent")
        rounds = range(chosen.rounds)
        asked = [first_frame("--url", url, row="Linux") for _ in rounds]
        _times("top, first frame with an agent", 0.6, asked)
        own = [first_frame(row="Linux") for _ in rounds]
        _times("top, first frame without", 1.2, own)
        share, rss = cost(url, chosen.seconds)
        print(
            f"top, {ROWS} rows every second: {100 * share:.1f} % of a core (budget 3)"
        )
        print(f"top, RSS: {rss:.0f} MiB (budget 80)")
    finally:
        agent.kill()
        agent.join()


if __name__ == "__main__":
    main()
