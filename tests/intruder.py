# SPDX-License-Identifier: Apache-2.0
"""An agent that is taken over once it counts: intruder.py SOCKET RESULTS FLAGS...

It tries to reach the unix socket SOCKET in every way that is known, in the main
thread and in a new one, writes what came of each attempt into RESULTS and goes on as
an agent.
"""

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from agent import cli
from agent.cluster.relay import Relay
from agent.cluster.relay_process import ERRNO
from agent.commands.run import run as _  # noqa: F401  loads the module of that name
from agent.kernel import libbpf

SOCKET = 41 if os.uname().machine == "x86_64" else 198
IO_URING_SETUP, PIDFD_GETFD = 425, 438
PTRACE_ATTACH = 16
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int) -> None:
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")


def trace(pid: int) -> None:
    if libc.ptrace(PTRACE_ATTACH, pid, None, None):
        raise OSError(ctypes.get_errno(), "")


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.connect(path)


def reconnect(path: str) -> None:
    """A pair is allowed; it stays one."""
    first, second = socket.socketpair()
    with first, second:
        second.close()
        first.connect(path)


def execute(path: str) -> None:
    argv = [sys.executable, "-I", "-S", "-c", CONNECT, path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "PermissionError" in done.stderr:
        raise PermissionError(errno.EACCES, "")


def ask_for_another_url(control: socket.socket) -> None:
    ours, its = socket.socketpair()
    with ours:
        with its:
            socket.send_fds(control, [bytes([3])], [its.fileno()])
        (number,) = ERRNO.unpack(ours.recv(ERRNO.size))
    if number:
        raise OSError(number, "")


def attack(path: str, relay: Relay) -> dict[str, str]:
    """The errno of each attempt; empty where it went well."""
    assert relay._process
    pid = relay._process.pid
    attempts: dict[str, Callable[[], object]] = {
        "connect": lambda: connect(path),
        "high bits": lambda: syscall(SOCKET, socket.AF_UNIX | 1 << 32, 1, 0),
        "datagrams": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "reconnect": lambda: reconnect(path),
        "io_uring": lambda: syscall(IO_URING_SETUP, 1, 0),
        "execute": lambda: execute(path),
        "trace": lambda: trace(pid),
        "memory": lambda: open(f"/proc/{pid}/mem", "r+b").close(),
        "file": lambda: os.readlink(f"/proc/{pid}/fd/0"),
        "steal": lambda: syscall(PIDFD_GETFD, os.pidfd_open(pid), 0, 0),
        "another url": lambda: ask_for_another_url(relay._control),
        "bpf": libbpf.create_map,
        "tcp": lambda: socket.socket().close(),
    }
    results = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            results[name] = ""
        except OSError as err:
            results[name] = errno.errorcode[err.errno or 0]
    return results


def main(path: str, out: str, flags: list[str]) -> None:
    ending = sys.modules["agent.commands.run"].__dict__["_Ending"]
    relays: list[Relay] = []
    enter, wait = Relay.__enter__, ending.wait_for_it

    def entered(relay: Relay) -> Relay:
        relays.append(relay)
        return enter(relay)

    def waited(self: object, relay_ended: object) -> None:
        results = {"main": attack(path, relays[0])}

        def in_thread() -> None:
            results["thread"] = attack(path, relays[0])

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        with open(f"{out}.new", "w") as file:
            json.dump(results, file)
        os.rename(f"{out}.new", out)
        wait(self, relay_ended)

    setattr(Relay, "__enter__", entered)  # noqa: B010  mypy
    ending.wait_for_it = waited
    sys.argv = ["bigtcp-agent", *flags]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
