# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent run` from start to end, wished or not."""

import contextlib
import gzip
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.commands.ending import EndedError
from agent.commands.run import _Ending
from agent.kernel.loader import PATIENCE_SECONDS, Loader
from agent.kernel.starting import stages
from agent.lab.demo import BIG
from agent.lab.netns import wait_until
from agent.snapshot.model import Family, Hook
from tests.kernel.frames import N, frame, gso_frame, ip_packet, send_frames
from tests.process import (
    COMMAND,
    agent,
    bpf_programs,
    fetch,
    free_port,
    loader_of,
    orphans,
    programs_of,
    start_stages,
)
from tests.stand import quiet_pair

CLOCK_TICK = 0.01  # in which the kernel tells when a process began
RUN = (COMMAND, "run", "--listen", "127.0.0.1:0")


def test_pages() -> None:
    with agent() as (_, address):
        assert fetch(f"{address}/livez") == (200, "ok\n")
        assert fetch(f"{address}/nowhere")[0] == 404
        status, page = fetch(f"{address}/")
        assert status == 200
        assert 'href="metrics"' in page
        status, text = fetch(f"{address}/metrics")
        assert status == 200
        for hook in ("net_dev_start_xmit", "netif_receive_skb", "net_dev_queue"):
            assert f'bigtcp_probe_attached{{hook="{hook}"}} 1.0' in text


def test_what_the_start_was_made_of() -> None:
    begun = time.monotonic()
    with agent("--log-format=json") as (process, _):
        seconds = start_stages(process)
        took = time.monotonic() - begun
    assert list(seconds) == [
        *("imports", "python", "btf", "bcc", "compile", "attach", "serving")
    ]
    assert min(seconds.values()) >= 0
    assert 0.05 < seconds["compile"] < sum(seconds.values()) < took + CLOCK_TICK


@pytest.fixture
def named_in_half_a_letter() -> Iterator[None]:
    """As the kernel cuts a name that is longer than 15 bytes."""
    path = Path("/proc/self/comm")
    name = path.read_bytes()
    path.write_bytes("bigtcp-agent-\u00e9".encode()[:-1])
    yield
    path.write_bytes(name)


@pytest.mark.usefixtures("named_in_half_a_letter")
def test_the_start_is_told_whatever_the_name() -> None:
    seconds = stages(time.monotonic(), {})
    assert list(seconds) == ["imports", "serving"]
    assert seconds["imports"] > 0


def test_the_start_is_told_without_free_file_descriptors() -> None:
    begun = time.monotonic()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        seconds = stages(begun, {"python": begun + 1})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(seconds) == ["python", "serving"]
    assert seconds["python"] == 1


def test_sigterm_ends_within_a_second() -> None:
    """The soonest of three: a machine may have other work."""
    took = []
    for _ in range(3):
        with agent() as (process, _):
            begun = time.monotonic()
            process.terminate()
            assert process.wait(60) == 0
            took.append(time.monotonic() - begun)
    assert min(took) < 1


def test_ctrl_c_is_told_apart() -> None:
    with agent() as (process, _):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.fixture
def loaders_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader stops itself when it comes to BCC."""
    stop = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n"
    (tmp_path / "bcc.py").write_text(stop)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def stopped(pid: int) -> bool:
    return ") T " in Path(f"/proc/{pid}/stat").read_text()


def seconds_to_end(number: signal.Signals, code: int) -> float:
    """Of an agent that starts and whose loader hangs."""
    process = subprocess.Popen(RUN, stderr=subprocess.PIPE, text=True)
    loader = loader_of(process)
    assert loader
    try:
        wait_until(lambda: stopped(loader), "the loader to be stopped")
        begun = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        took = time.monotonic() - begun
        assert (process.returncode, said) == (code, "")
        wait_until(lambda: not os.path.exists(f"/proc/{loader}"), "its end")
    finally:
        process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(loader, signal.SIGKILL)
    return took


@pytest.mark.usefixtures("loaders_hang")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)]
)
def test_a_signal_during_the_start_ends_it(number: signal.Signals, code: int) -> None:
    """Within a second, the soonest of three."""
    assert min(seconds_to_end(number, code) for _ in range(3)) < 1


def test_a_signal_while_the_loader_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It interrupts once it is known whom to end."""
    fork, children = subprocess.Popen, []

    def interrupted(*args: Any, **more: Any) -> "subprocess.Popen[bytes]":
        children.append(fork(*args, **more))
        signal.raise_signal(signal.SIGINT)
        return children[0]

    with contextlib.closing(Loader([Hook.NET_DEV_START_XMIT])) as loader:
        monkeypatch.setattr(subprocess, "Popen", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loader.start()
    assert children[0].returncode is not None  # it was ended, and waited for
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.fixture
def ending() -> Iterator[_Ending]:
    """Signals are as they were, afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    hook = sys.unraisablehook
    yield _Ending()
    for number, handler in before.items():
        signal.signal(number, handler)
    sys.unraisablehook = hook


def test_a_signal_while_the_main_thread_has_the_lock(ending: _Ending) -> None:
    """It interrupts the very thread that would have to let go of it."""
    with pytest.raises(EndedError), ending, vars(ending._over)["_cond"]:
        signal.raise_signal(signal.SIGINT)
    assert ending.code == 130
    assert ending.wait(0)


def test_no_signal_interrupts_what_is_taken_down(ending: _Ending) -> None:
    with ending:
        pass
    signal.raise_signal(signal.SIGTERM)
    ending.wait_for_it(lambda: False)


# The signal comes with its handler.
EAGER = """
import signal, sys
from agent import cli

def signal_and_raise(number, handler, of=signal.signal):
    before = of(number, handler)
    signal.raise_signal(number)
    return before

signal.signal = signal_and_raise
sys.argv = ["bigtcp-agent", "run", "--listen", "127.0.0.1:0"]
cli.main()
"""


def test_a_signal_that_comes_as_soon_as_it_may() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EAGER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("loaders_hang")
def test_a_signal_that_another_thread_takes_is_heard() -> None:
    """As where it comes while we fork."""
    waits = Path(f"/proc/self/task/{threading.get_native_id()}/wchan")

    def take() -> None:
        wait_until(lambda: "poll" in waits.read_text(), "it to be waited for")
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    thread = threading.Thread(target=take)
    with contextlib.closing(Loader([Hook.NET_DEV_START_XMIT])) as loader:
        loader.start()
        child = loader._child
        assert child
        wait_until(lambda: stopped(child.pid), "the loader to be stopped")
        thread.start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            loader.finish()
        assert time.monotonic() - begun < PATIENCE_SECONDS / 4
    thread.join()


@pytest.mark.parametrize("delay", [0.1, 0.13, 0.16, 0.2, 0.25])
def test_a_signal_at_any_moment_of_the_start(delay: float) -> None:
    process = subprocess.Popen(RUN, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)  # the moment is what is varied here
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    # Before main() runs, the signal's default holds.
    assert process.returncode in (0, -signal.SIGTERM)


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "<&- >&-"])
def test_closed_standard_files(closed: str) -> None:
    port = free_port()
    script = f"exec {COMMAND} run --listen 127.0.0.1:{port} {closed}"
    process = subprocess.Popen(["sh", "-c", script])
    try:
        url = f"http://127.0.0.1:{port}/readyz"
        wait_until(lambda: fetch(url)[0] == 200, "the agent")
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_who_reads_the_log_may_go() -> None:
    with agent() as (process, address):
        assert process.stderr
        process.stderr.close()
        assert fetch(f"{address}/livez")[0] == 200
        process.terminate()
        assert process.wait(60) == 0


def test_nowhere_to_write() -> None:
    """Neither a folder for temporary files, nor a file to print to."""
    hide = "; ".join(
        f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}"
        for folder in ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  hidden here
    )
    script = f"{hide}; cd /proc; {COMMAND} check > /dev/full"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error == "error: no space left on device"
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("files", [6, 10])
def test_too_few_file_descriptors(files: int) -> None:
    script = f"ulimit -n {files}; exec {COMMAND} run --listen 127.0.0.1:0"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (1, 3)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_addresses_to_listen_on(host: str) -> None:
    port = free_port()
    process = subprocess.Popen([COMMAND, "run", "--listen", f"{host}:{port}"])
    try:
        wait_until(lambda: fetch(f"http://{host}:{port}/livez")[0] == 200, host)
    finally:
        process.terminate()
        process.wait()


def test_formats_and_filters() -> None:
    with agent() as (_, address):
        wants = {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
        request = urllib.request.Request(f"{address}/metrics", headers=wants)
        with urllib.request.urlopen(request) as answer:
            assert answer.headers["Content-Type"].startswith(
                "application/openmetrics-text"
            )
            assert answer.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(answer.read()).endswith(b"# EOF\n")
        _, text = fetch(f"{address}/metrics?name[]=bigtcp_build_info")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(lines) == 1
        assert lines[0].startswith("bigtcp_build_info{")
        request = urllib.request.Request(f"{address}/", method="HEAD")
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == b""
            assert int(answer.headers["Content-Length"]) > 500
        for version in ("zz", "\xff", "1.0.0;q=1"):
            odd = {"Accept": f"application/openmetrics-text; version={version}"}
            request = urllib.request.Request(f"{address}/metrics", headers=odd)
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
        request = urllib.request.Request(f"{address}/metrics", method="HEAD")
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == b""
        for query in ("seconds=x", "seconds=-1", "seconds=nan", "seconds=1e9"):
            status, said = fetch(f"{address}/api/snapshot?{query}")
            assert status == 400
            assert "use a number" in said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_in_the_kernel(number: signal.Signals) -> None:
    with agent() as (process, _):
        programs = wait_until(lambda: programs_of(process.pid), "its programs")
        assert len(programs) == 3
        assert programs <= bpf_programs()
        process.send_signal(number)
        process.wait(60)
        wait_until(lambda: not programs & bpf_programs(), "the programs to be gone")


def test_a_second_agent_on_the_port_says_so() -> None:
    with agent() as (_, address):
        port = address.rpartition(":")[2]
        done = subprocess.run(
            [COMMAND, "run", "--listen", f":{port}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: cannot listen on :{port}: address")
        assert "hint: stop the process that listens there" in done.stderr


CAPABLE = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all")


def test_two_capabilities_are_enough() -> None:
    """uid 0 as a container has it: BPF and PERFMON, nothing else. Every hook counts."""
    bounded = (*CAPABLE, "--bounding-set=-all,+bpf,+perfmon", "--no-new-privs")
    at = 'interface="eth0",ip_family="ipv4",scope="node"'
    expected = {
        f'bigtcp_skb_length_bytes_count{{hook="net_dev_start_xmit",{at}}} {N}.0',
        f'bigtcp_skb_length_bytes_count{{hook="netif_receive_skb",{at}}} {2 * N}.0',
        f"bigtcp_queued_big_skbs_total{{{at}}} {N}.0",
    }
    with (
        quiet_pair() as (node, far),
        agent(within=node, prefix=bounded) as (process, address),
    ):
        with open(f"/proc/{process.pid}/status") as file:
            status = file.read()
        assert "CapBnd:\t000000c000000000" in status
        assert "CapEff:\t0000000000000000" in status  # it needs them at start only
        node.set_sizes("eth0", BIG)
        send_frames(node, [gso_frame(Family.IPV4, 66000, 1000)] * N)
        send_frames(far, [frame(Family.IPV4, ip_packet(Family.IPV4, 100))] * 2 * N)

        def told() -> bool:
            _, text = node.call(lambda: fetch(f"{address}/metrics"))
            return expected <= set(text.splitlines())

        wait_until(told, "the packets in the metrics")


@pytest.mark.parametrize("granted", ["", ",+bpf"])
def test_too_few_capabilities_are_named(granted: str) -> None:
    before = bpf_programs()
    done = subprocess.run(
        [*CAPABLE, f"--bounding-set=-all{granted}", *RUN],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("\n") == 2
    assert "operation not permitted" in done.stderr
    assert "capabilities BPF and PERFMON" in done.stderr
    wait_until(lambda: not orphans(before), "the programs to be gone")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hooks", "net_dev"], "there is no hook 'net_dev'"),
        (["--hooks", ","], "names no hook"),
        (["--listen", "nonsense"], "'nonsense' is no address"),
        (["--listen", ":70000"], "':70000' is no address"),
        (["--listen", ":٣"], "is no address"),
        (["--interfaces", "eth0,!"], "no pattern"),
        (["--max-interfaces", "-1"], "--max-interfaces"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_bad_flags(flags: list[str], message: str) -> None:
    done = subprocess.run([*RUN, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert hint.startswith("hint: ")


def test_the_wrong_bcc_is_recognised(tmp_path: os.PathLike[str]) -> None:
    """PyPI has another project under this name."""
    with open(f"{tmp_path}/bcc.py", "w") as file:
        file.write("answer = 42\n")
    done = subprocess.run(
        RUN,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 3
    assert "not BCC" in done.stderr
    assert "apt install python3-bpfcc" in done.stderr


def test_a_bcc_py_where_we_stand_is_not_imported(tmp_path: os.PathLike[str]) -> None:
    with open(f"{tmp_path}/bcc.py", "w") as file:
        file.write("raise SystemExit('hijacked')\n")
    done = subprocess.run(
        [COMMAND, "run", "--listen", "203.0.113.1:1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "cannot listen on 203.0.113.1:1" in done.stderr
