# SPDX-License-Identifier: Apache-2.0
"""bigtcp-agent as a process, as a user starts it."""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.lab.netns import Namespace, wait_until


def any_certificate() -> ssl.SSLContext:
    """For servers that are ours."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}),  # none
    urllib.request.HTTPSHandler(context=any_certificate()),
)
COMMAND = str(Path(sys.executable).with_name("bigtcp-agent"))


def unreadable_file(path: Path, kind: str) -> None:
    """Make what must be refused, not waited for and not read without end: a `fifo`, a
    link to a `device`, or a file of 1 TiB (`long`).
    """
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 1 << 40)


def free_ports(count: int) -> list[int]:
    """Different ones."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]


def free_port() -> int:
    return free_ports(1)[0]


def nobody() -> str:
    """An address where nobody answers."""
    return f"http://127.0.0.1:{free_port()}"


def basic(login: str) -> dict[str, str]:
    """The header of a login, which is NAME:PASSWORD; none where it is empty."""
    encoded = base64.b64encode(login.encode()).decode()
    return {"Authorization": f"Basic {encoded}"} if login else {}


def fetch(url: str, login: str = "") -> tuple[int, str]:
    """Status and body; status 0 where nobody answers. `login` is NAME:PASSWORD."""
    request = urllib.request.Request(url, headers=basic(login))
    try:
        with _OPENER.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read().decode()
    except OSError:
        return 0, ""


def fetch_from(source: str, port: int, path: str, login: str = "") -> tuple[int, str]:
    """The same of a server on 127.0.0.1, as a client with another address there."""
    address = (source, 0)
    connection = http.client.HTTPConnection("127.0.0.1", port, 60, address)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=basic(login))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def bpf_programs() -> set[int]:
    """Ids of all programs that are loaded on this kernel."""
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    found, at = set(), ctypes.c_uint32(0)
    while not lib.bpf_prog_get_next_id(at, ctypes.byref(at)):
        found.add(at.value)
    return found


def programs_of(pid: int) -> set[int]:
    """Ids of the programs that a process holds, by themselves or by its links. It may
    close files or end meanwhile.
    """
    found = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fdinfo"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/fdinfo/{fd}") as file:
                ours = [line for line in file if line.startswith("prog_id:")]
                found |= {int(line.split()[1]) for line in ours}
    return found


def orphans(before: set[int]) -> set[int]:
    """Ids of programs that were loaded since and that no process holds: whatever else
    loads some here holds them.
    """
    found = bpf_programs() - before
    for pid in filter(str.isdigit, os.listdir("/proc")) if found else ():
        found -= programs_of(int(pid))
    return found


def child_of(process: subprocess.Popen[str], what: str = "") -> int | None:
    """A child, one with `what` in its command line: between fork and exec that is its
    parent's, which waits.
    """
    done = subprocess.run(
        ["pgrep", "-f", "-P", str(process.pid), what],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout.split()[0]) if done.stdout else None


def loader_of(process: subprocess.Popen[str]) -> int | None:
    """Of an agent that starts; None where it was gone before we could look."""

    def found() -> list[int | None]:
        child = child_of(process, "kernel.loader")
        gone = programs_of(process.pid) or process.poll() is not None
        return [child] if child or gone else []

    return wait_until(found, "its loader")[0]


@contextlib.contextmanager
def agent(
    *flags: str,
    within: Namespace | None = None,
    prefix: tuple[str, ...] = (),
    command: Sequence[str] = (COMMAND,),
    secure: bool = False,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running, ready agent and its address; killed at the end. `secure`: its flags
    make it speak TLS.
    """
    port = free_port()
    argv = [*prefix, *command, "run", "--listen", f":{port}", *flags]
    process = subprocess.Popen(
        within.command(*argv) if within else argv,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    address = f"{'https' if secure else 'http'}://127.0.0.1:{port}"

    def ready() -> bool:
        if process.poll() is not None:
            assert process.stderr
            raise AssertionError(process.stderr.read())
        url = f"{address}/readyz"
        answer = within.call(lambda: fetch(url)) if within else fetch(url)
        return answer[0] == 200

    try:
        wait_until(ready, "the agent to be ready")
        yield process, address
    finally:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def start_stages(process: subprocess.Popen[str]) -> dict[str, float]:
    """Seconds, as an agent with --log-format=json logs them when it counts."""
    assert process.stderr
    events = map(json.loads, process.stderr)
    seconds: dict[str, float] = next(
        each["seconds"] for each in events if each["event"] == "counting"
    )
    return seconds


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve in a thread meanwhile, and close the server at the end."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
