# SPDX-License-Identifier: Apache-2.0
"""What a screen of `top` costs: `python -m tests.bench.top`.

300 rows that all change, of an agent that runs in a process of its own; then with
probes of its own. Exit code 1 where a budget is not kept.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.lab.netns import pair, wait_until
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


def first_frame(argv: Sequence[str]) -> float:
    """Seconds from the start to a screen that says something of the node."""
    with terminal(*argv, columns=COLUMNS, lines=LINES) as screen:
        seconds = screen.wait_for("Linux")
        screen.type("q")
        assert screen.end() == 0, screen.text
    return seconds


def cost(argv: Sequence[str], seconds: float) -> tuple[float, float]:
    """Share of a core and RSS in MiB, once it runs."""
    with terminal(*argv, columns=COLUMNS, lines=LINES) as screen:
        screen.wait_for("Linux")
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


class Budgets:
    """What was measured against what it may be."""

    def __init__(self) -> None:
        self.kept = True

    def tell(self, label: str, value: float, unit: str, most: float) -> None:
        above = value > most
        self.kept = self.kept and not above
        told = f"top, {label}: {value:.2f} {unit} (budget {most:g})"
        print(told + (": ABOVE" if above else ""))


def main() -> int:
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
        asking = (COMMAND, "top", "--url", url, "--interval", "1")
        with pair() as stand:  # in a namespace no agent answers
            looking = stand.client.command(COMMAND, "top", "--interval", "1")
            budgets = Budgets()
            for label, argv, most in (
                ("first frame with an agent", asking, 0.6),
                ("first frame with probes of its own", looking, 1.2),
            ):
                frames = [first_frame(argv) for _ in range(chosen.rounds)]
                budgets.tell(label, statistics.median(frames), "s", most)
                print(f"  {min(frames):.2f} to {max(frames):.2f}")
            share, rss = cost(asking, chosen.seconds)
            budgets.tell(f"CPU for {ROWS} rows a second", 100 * share, "% of a core", 3)
            budgets.tell("RSS with an agent", rss, "MiB", 80)
            _, rss = cost(looking, 3)
            budgets.tell("RSS with probes of its own", rss, "MiB", 80)
    finally:
        agent.kill()
        agent.join()
    return 0 if budgets.kept else 1


if __name__ == "__main__":
    sys.exit(main())
