# SPDX-License-Identifier: Apache-2.0
"""netperf TCP_RR with large messages: the lab's test, run and understood."""

import shutil
import socket
import subprocess

from agent.errors import AgentError
from agent.lab.netns import Namespace, wait_until
from agent.snapshot.experiment import Netperf

PORT = 12865
MESSAGE_BYTES = 80_000  # request and response, as in Cilium's BIG TCP lab
# netperf silently leaves out a selector that it does not know.
_KEYS = (
    "THROUGHPUT",
    "THROUGHPUT_UNITS",
    "MIN_LATENCY",
    "P90_LATENCY",
    "P99_LATENCY",
)
_GRACE_SECONDS = 20.0


def require() -> None:
    """AgentError where netperf or netserver is not installed."""
    for program in ("netperf", "netserver"):
        if shutil.which(program) is None:
            raise AgentError(
                f"{program} is not installed",
                "apt install netperf (Debian 12 has it in non-free), "
                "or let `make demo` do it",
            )


def serve(namespace: Namespace, cpu: int) -> None:
    """Start netserver in a namespace, on one CPU, and wait until it answers."""
    server = namespace.start(
        "taskset", "-c", str(cpu), "netserver", "-D", "-p", str(PORT)
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
            "use netperf 2.7 or newer; it said: " + (output.strip() or "nothing"),
        )
    if found["THROUGHPUT_UNITS"] != "Trans/s":
        raise AgentError(
            f"netperf measured {found['THROUGHPUT_UNITS']}, not transactions",
            "report it with the version that `netperf -V` prints",
        )
    try:
        return Netperf(
            transactions_per_second=float(found["THROUGHPUT"]),
            min_latency_us=float(found["MIN_LATENCY"]),
            p90_latency_us=float(found["P90_LATENCY"]),
            p99_latency_us=float(found["P99_LATENCY"]),
        )
    except ValueError as err:
        raise AgentError(
            f"netperf printed no number: {err}", "report it with `netperf -V`"
        ) from err


def tcp_rr_command(address: str, seconds: int) -> list[str]:
    """The command line of TCP_RR, whose output `parse` reads."""
    return [
        *("netperf", "-H", address, "-p", str(PORT)),
        *("-6" if ":" in address else "-4", "-l", f"{seconds:g}", "-P", "0", "-j"),
        *("-t", "TCP_RR", "--", "-r", f"{MESSAGE_BYTES}:{MESSAGE_BYTES}"),
        *("-k", ",".join(_KEYS)),
    ]


def tcp_rr(client: Namespace, address: str, cpu: int, seconds: int) -> Netperf:
    """Run TCP_RR from a namespace against a netserver; AgentError where it fails."""
    argv = client.command("taskset", "-c", str(cpu), *tcp_rr_command(address, seconds))
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise AgentError(
            f"netperf to {address} did not end in {err.timeout:.0f} s",
            "packets are lost on the way: see `ip -s link` in both namespaces",
        ) from err
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise AgentError(
            f"netperf to {address} failed: "
            + (said[-1] if said else f"code {done.returncode}"),
            "run it again; if it fails again, report it with --verbose",
        )
    return parse(done.stdout)
