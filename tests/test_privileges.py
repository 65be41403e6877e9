# SPDX-License-Identifier: Apache-2.0
"""What a running agent may do, as the kernel sees it and as code inside it tries."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.lab.netns import Namespace, wait_until
from agent.snapshot.model import Family
from tests import process
from tests.kernel.frames import N, frame, ip_packet, send_frames
from tests.process import child_of, fetch
from tests.sources.agent import agent as cilium
from tests.sources.agent import answering, recorded
from tests.stand import quiet_pair

# Not the script: virtual machines of tests/vm have none.
COMMAND = (sys.executable, "-m", "agent")
agent = partial(process.agent, command=COMMAND)
POD = "10.9.9.9"
POD_NAME = "default/p1"  # in the recording
BOUNDED = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all")
AS_IN_A_CONTAINER = (*BOUNDED, "--bounding-set=-all,+bpf,+perfmon", "--no-new-privs")


def cilium_with_a_pod(namespace: Namespace) -> dict[str, Any]:
    """Recorded answers, in which `eth0` of a namespace is the host side of a pod."""
    answers = copy.deepcopy(recorded("1.20.2")["on"])
    (endpoint,) = (
        each
        for each in answers["/v1/endpoint"]
        if {"name": f"resolve-labels-{POD_NAME}"} in each["status"]["controllers"]
    )
    answers["/v1/endpoint"] = [endpoint]
    networking = endpoint["status"]["networking"]
    links = json.loads(namespace.run("ip", "-j", "link", "show", "eth0"))
    networking["interface-index"] = links[0]["ifindex"]
    networking["interface-name"] = "eth0"
    networking["addressing"] = [{"ipv4": POD}]
    return answers


def status_of_threads(pid: int) -> dict[str, dict[str, str]]:
    """Fields of /proc/PID/status, by thread."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = (task / "status").read_text().splitlines()
            fields = (line.split(":", 1) for line in lines)
            found[task.name] = {name: value.strip() for name, value in fields}
    return found


def require_nothing_held(pid: int, *, bounding: int) -> int:
    """No thread holds a capability or can gain one; how many threads there are."""
    threads = status_of_threads(pid)
    for fields in threads.values():
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(fields[name], 16) == 0, (fields["Name"], name, fields[name])
        assert int(fields["CapBnd"], 16) == bounding
        assert fields["NoNewPrivs"] == "1"
    return len(threads)


@pytest.mark.parametrize(
    ("prefix", "bounding"),
    [((), 0), (AS_IN_A_CONTAINER, 0xC000000000)],  # BPF, PERFMON
    ids=["root", "container"],
)
def test_no_thread_keeps_a_capability(
    prefix: tuple[str, ...], bounding: int, tmp_path: Path
) -> None:
    """Under load, and with pods whose addresses are told to the kernel afterwards."""
    socket_path = tmp_path / "cilium.sock"
    with quiet_pair() as (node, far), contextlib.ExitStack() as stack:
        stack.enter_context(cilium(socket_path, answering(cilium_with_a_pod(node))))
        flags = ("--max-pods", "2", "--cilium-socket", str(socket_path))
        process, address = stack.enter_context(
            agent(*flags, within=node, prefix=prefix)
        )
        require_nothing_held(process.pid, bounding=bounding)
        relay = wait_until(lambda: child_of(process, "relay_process"), "the relay")
        assert relay
        require_nothing_held(relay, bounding=bounding)
        to_pod = frame(Family.IPV4, ip_packet(Family.IPV4, 1000, POD))
        send_frames(far, [to_pod] * N)

        def scrape(_: int) -> tuple[int, str]:
            return node.call(lambda: fetch(f"{address}/metrics"))

        most = 0
        row = (
            'bigtcp_pod_skb_length_bytes_count{direction="rx",ip_family="ipv4",'
            f'namespace="default",pod="p1"}} {N}.0'
        )
        with ThreadPoolExecutor(4) as pool:
            # Twenty at least: threads of requests come and go meanwhile.
            for scrapes in range(400):
                answer = pool.submit(scrape, scrapes)
                while not answer.done():
                    threads = require_nothing_held(process.pid, bounding=bounding)
                    most = max(most, threads)
                status, text = answer.result()
                assert status == 200
                if scrapes >= 20 and row in text.splitlines():
                    break
            else:
                raise AssertionError("the pod's packets are not in the metrics")
        assert most >= 2  # else this has seen no thread but the first


COUNT_THREADS = """
import threading
from agent import privileges

end = threading.Event()
for begin in (threading.Thread(target=end.wait).start, privileges.drop_capabilities):
    begin()
    print(privileges.threads_with_capabilities())
end.set()
"""


def test_a_thread_that_was_there_before_is_told() -> None:
    """It keeps its capabilities: nobody can drop another thread's."""
    argv = [sys.executable, "-c", COUNT_THREADS]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["2", "1"], "")


@pytest.mark.parametrize("prefix", [(), AS_IN_A_CONTAINER], ids=["root", "container"])
def test_code_in_the_agent_cannot_reach_the_socket_of_cilium(
    prefix: tuple[str, ...], tmp_path: Path
) -> None:
    path, out = tmp_path / "cilium.sock", tmp_path / "results"
    requests: list[str] = []
    expected = {
        "connect": "EACCES",
        "high bits": "EACCES",
        "datagrams": "EACCES",
        "reconnect": "EISCONN",
        "io_uring": "EACCES",
        "execute": "EACCES",
        "trace": "EPERM",
        "memory": "EACCES",
        "file": "EACCES",
        "steal": "EPERM",
        "another url": "EINVAL",
        "bpf": "EPERM",
        "tcp": "",
    }
    with quiet_pair() as (node, _), contextlib.ExitStack() as stack:
        answers = cilium_with_a_pod(node)
        stack.enter_context(cilium(path, answering(answers), requests))
        path.chmod(0o777)  # its mode refuses nobody
        _, address = stack.enter_context(
            agent(
                *("--cilium-socket", str(path)),
                within=node,
                prefix=prefix,
                command=[sys.executable, "-m", "tests.intruder", str(path), str(out)],
            )
        )
        wait_until(out.exists, "the attempts")
        results = json.loads(out.read_text())
        assert results["main"].items() ^ expected.items() == set()
        assert results["thread"] == results["main"]

        def checked() -> Any:
            """What `check` is told of Cilium and its pods, once it is told of them."""
            argv = [*COMMAND, "check", "--url", address, "-o", "json"]
            done = subprocess.run(
                node.command(*argv), capture_output=True, text=True, check=False
            )
            assert done.returncode in (0, 5), done.stderr
            found = json.loads(done.stdout)
            return found["pods"] and found

        picture = wait_until(checked, "a pod in the picture")
        assert picture["cilium"]["version"] == "1.20.2"
        assert [pod["name"] for pod in picture["pods"]] == [POD_NAME]
        # As docs/SECURITY.md says of what port 19715 leaks.
        for page in ("metrics", "api/snapshot"):
            status, text = node.call(partial(fetch, f"{address}/{page}"))
            assert status == 200
            assert POD not in text
    assert set(requests) == {
        f"GET {url} HTTP/1.1" for url in ("/v1/healthz", "/v1/config", "/v1/endpoint")
    }


def test_without_the_relay_it_ends(tmp_path: Path) -> None:
    """It cannot start another, and a Cilium that answers must not look mute."""
    with agent("--cilium-socket", str(tmp_path / "none")) as (process, _):
        relay = child_of(process, "relay_process")
        assert relay
        os.kill(relay, signal.SIGKILL)
        assert process.wait(60) == 1
        assert process.stderr
        told = process.stderr.read()
    assert "error: the process that asks Cilium has ended\n" in told
    assert "Traceback" not in told


def test_the_relay_ends_with_an_agent_that_is_killed(tmp_path: Path) -> None:
    with agent("--cilium-socket", str(tmp_path / "none")) as (process, _):
        relay = child_of(process, "relay_process")
        assert relay
        process.kill()

        def ended() -> bool:
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{relay}/cmdline").read_bytes()
                return b"relay_process" not in name
            return True

        wait_until(ended, "the relay to end")


def test_no_relay_where_cilium_is_not_asked() -> None:
    with agent("--no-cilium") as (process, address):
        status, text = fetch(f"{address}/metrics")
        assert status == 200
        assert 'bigtcp_source_up{source="cilium"} 0.0\n' in text
        assert child_of(process, "relay_process") is None
        require_nothing_held(process.pid, bounding=0)
        process.terminate()
        assert process.wait(60) == 0
