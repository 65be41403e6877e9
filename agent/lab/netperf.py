# SPDX-License-Identifier: Apache-2.0
"""netperf TCP_RR with large messages: the lab's test, run and understood."""

import math
import re
import socket
import subprocess

from agent.errors import AgentError
from agent.lab.netns import Namespace, wait_until, with_us
from agent.lab.programs import require
from agent.snapshot.experiment import Latency, Netperf, TcpRr

PORT = 12865  # that netserver listens on
MESSAGE_BYTES = 80_000  # request and response, as in Cilium's BIG TCP lab
_LATENCIES = {
    "min": "MIN_LATENCY",
    "mean": "MEAN_LATENCY",
    "p50": "P50_LATENCY",
    "p90": "P90_LATENCY",
    "p99": "P99_LATENCY",
    "max": "MAX_LATENCY",
    "stddev": "STDDEV_LATENCY",
}
# netperf silently leaves out a selector that it does not know.
_KEYS = ("THROUGHPUT", "THROUGHPUT_UNITS", *_LATENCIES.values(), "ELAPSED_TIME")
_NEWER = "use netperf 2.7 or newer"
_GRACE_SECONDS = 60.0  # of a busy machine, where both ends may get no CPU
_VERSION_SECONDS = 5.0


def version() -> str:
    """What `netperf -V` says, such as 2.7.1; "" where it says nothing of the kind."""
    try:
        done = subprocess.run(
            with_us("netperf", "-V"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    found = re.search(r"version (\d[\w.+~-]*)", done.stdout + done.stderr)
    return found[1] if found else ""


def serve(namespace: Namespace, cpu: int) -> None:
    """Start netserver in a namespace, on one CPU, and wait until it answers.

    It forks for each test, and what it forks would outlive it, waiting for a client
    that is gone: as the first process of a PID namespace it takes them along. (With
    -f it does not fork, but may wait so itself, and hear nobody else.)
    """
    server = namespace.start(
        *("taskset", "-c", str(cpu), "unshare", "--pid", "--fork", "--kill-child"),
        *("netserver", "-D", "-p", str(PORT)),
    )

    def answers() -> bool:
        if server.poll() is not None:
            raise AgentError(
                f"netserver ended with code {server.returncode}",
                "run `netserver -D` by hand and see what it says",
            )
        try:
            with socket.create_connection(("127.0.0.1", PORT), 1):
                return True
        except OSError:
            return False

    wait_until(lambda: namespace.call(answers), "netserver to answer")


def parse(output: str) -> Netperf:
    """Read `KEY=value` lines of `-k`; AgentError where a key is missing."""
    found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise AgentError(
            f"netperf did not print {', '.join(missing)}",
            f"{_NEWER}; it said: " + (output.strip() or "nothing"),
        )
    if found["THROUGHPUT_UNITS"] != "Trans/s":
        raise AgentError(
            f"netperf measured {found['THROUGHPUT_UNITS']}, not transactions",
            "report it with the version that `netperf -V` prints",
        )

    def number(key: str) -> float:
        value = float(found[key])
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{key}={found[key]}")
        return value

    try:
        return Netperf(
            transactions_per_second=number("THROUGHPUT"),
            latency_us=Latency(**{at: number(key) for at, key in _LATENCIES.items()}),
            elapsed_seconds=number("ELAPSED_TIME"),
        )
    except ValueError as err:
        raise AgentError(
            f"netperf printed no number: {err}", "report it with `netperf -V`"
        ) from err


def tcp_rr_command(
    address: str,
    seconds: int,
    port: int = PORT,
    request: int = MESSAGE_BYTES,
    response: int = MESSAGE_BYTES,
) -> list[str]:
    """The command line of TCP_RR, whose output `parse` reads."""
    return [
        *("netperf", "-H", address, "-p", str(port)),
        *("-6" if ":" in address else "-4", "-l", str(seconds), "-P", "0", "-j"),
        *("-t", "TCP_RR", "--", "-r", f"{request}:{response}"),
        *("-k", ",".join(_KEYS)),
    ]


def tcp_rr(client: Namespace, address: str, cpu: int, seconds: int) -> Netperf:
    """Run TCP_RR from a namespace against a netserver; AgentError where it fails."""
    command = tcp_rr_command(address, seconds)
    return _run(
        client.command("taskset", "-c", str(cpu), *command),
        address,
        seconds,
        f"other work leaves CPU {cpu}, where both ends run, no time: see `top`; or "
        "packets are lost on the way: see `ip -s link` in both namespaces",
    )


def run(test: TcpRr, address: str, port: int) -> Netperf:
    """One run of a test from here, against a netserver elsewhere; AgentError where
    it fails. netperf ends when we do.
    """
    command = tcp_rr_command(address, test.seconds, port, test.request, test.response)
    if test.cpu is not None:
        require("taskset")
        command = ["taskset", "-c", str(test.cpu), *command]
    return _run(
        with_us(*command),
        address,
        test.seconds,
        "netserver sends and receives on a second port, which it chooses: is that "
        "let through, and are big packets?",
    )


def _run(argv: list[str], address: str, seconds: int, hint: str) -> Netperf:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + _GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise AgentError(
            f"netperf to {address} did not end in {err.timeout:.0f} s", hint
        ) from err
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        if any(line.startswith("Usage: ") for line in said):
            raise AgentError(f"this netperf is too old: {said[0]}", _NEWER)
        raise AgentError(
            f"netperf to {address} failed: "
            + (said[-1] if said else f"code {done.returncode}"),
            "run it again; if it fails again, report it with `netperf -V`",
        )
    return parse(done.stdout)
