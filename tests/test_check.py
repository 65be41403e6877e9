# SPDX-License-Identifier: Apache-2.0
"""`check` as a user starts it: with an agent, without one, and with bad input."""

import contextlib
import http.server
import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from agent.inquiry import LOCAL_AGENT
from agent.lab.demo import BIG, LEGACY
from agent.lab.netns import chain
from agent.lab.netperf import serve, tcp_rr
from agent.snapshot.model import Family
from tests.process import COMMAND, agent, nobody, serving


def check(*argv: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [COMMAND, "check", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_it_asks_the_agent() -> None:
    with agent() as (_, address):
        code, told, said = check("--url", address)
    assert code == 0, said
    assert "no Cilium" in " ".join(told.split())  # the kernel's name wraps it
    assert "No problems found on this node" in told
    assert "not seen: cilium: there is none here" in told
    assert "not seen: configmap: not asked: no --node-name" in told


def test_it_looks_by_itself() -> None:
    code, told, said = check("--seconds", "0.2", "-o", "json")
    assert code == 0, said
    answer = json.loads(told)
    assert answer["schema"] == "bigtcp.snapshot/v1"
    assert answer["cilium"] is None
    assert not answer["sources"]["cilium"]["up"]


def test_it_watches_until_ctrl_c() -> None:
    with agent() as (process, address):
        with watching(address, "-o", "json") as watch:
            assert watch.stdout
            taken = [json.loads(watch.stdout.readline())["taken"] for _ in range(2)]
            assert taken[0] < taken[1]
            watch.send_signal(signal.SIGINT)
            _, said = watch.communicate(timeout=60)
            assert (watch.returncode, said.strip()) == (130, "")
        with watching(address) as watch:
            assert watch.stdout
            assert "Linux" in watch.stdout.readline()
            process.kill()
            _, said = watch.communicate(timeout=60)
            assert watch.returncode == 4
            assert said.startswith(f"error: the agent at {address} answers no more")


@contextlib.contextmanager
def watching(address: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [COMMAND, "check", "--url", address, "--watch", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        try:
            yield watch
        finally:
            watch.kill()


@pytest.mark.parametrize("seconds", ["nan", "0", "-1", "61", "x"])
def test_a_time_that_is_none(seconds: str) -> None:
    code, told, said = check("--seconds", seconds)
    assert (code, told) == (2, "")
    assert said.startswith("error: ")


def test_a_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", nobody())
    with agent() as (_, address):
        code, told, _ = check("--url", address, "--seconds", "1")
    assert code == 0
    assert "; 1 s of traffic" in " ".join(told.split())


def test_where_an_agent_was_named_nobody_else_answers() -> None:
    url = nobody()
    code, told, said = check("--url", url)
    assert (code, told) == (4, "")
    assert said.startswith(f"error: no agent answers at {url} (")


def test_without_agent_and_rights() -> None:
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set=-all", "--no-new-privs"),
            *(COMMAND, "check"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"error: no agent answers at {LOCAL_AGENT} (")
    assert "we cannot look ourselves" in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:19715", "ftp://x/", "", "http://", "http://[::1"),
        *("http://[::1]:x/", "http://a b/", "http://\u00e9/"),
        *("http://127.0.0.1:99999", "http://fd00::7:99999", "http://fd00::7"),
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    code, told, said = check("--url", url)
    assert (code, told) == (2, "")
    assert said.startswith("error: --url ")


class Stranger(http.server.BaseHTTPRequestHandler):
    """Somebody who speaks HTTP, and nothing of ours."""

    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"hello", b"[]", b"\xff\xfe", b"[" * 100_000),
        *(b'{"schema": "bigtcp.snapshot/v9"}', b'{"schema": "bigtcp.snapshot/v1"}'),
    ],
)
def test_a_stranger_answers(stranger: str, answer: bytes) -> None:
    Stranger.answer = answer
    code, told, said = check("--url", stranger)
    assert (code, told) == (1, "")
    error, hint = said.splitlines()
    assert error.startswith(f"error: {stranger} ")
    assert hint.startswith("hint: ")


def test_a_router_that_cuts_is_named() -> None:
    """Without any Cilium: the agent in the router's namespace names its uplink."""
    with chain() as stand:
        stand.set_sizes(BIG, LEGACY)
        assert stand.uplink
        router, uplink = stand.uplink
        serve(stand.server, 0)
        with agent(within=router) as (_, address):
            for family in (Family.IPV4, Family.IPV6):
                tcp_rr(stand.client, stand.addresses[family], 0, 1)
            done = subprocess.run(
                router.command(COMMAND, "check", "--url", address, "-o", "json"),
                capture_output=True,
                text=True,
                check=False,
            )
    assert done.returncode == 5, done.stderr
    answer = json.loads(done.stdout)
    states = {name: each["state"] for name, each in answer["families"].items()}
    assert states == {"ipv4": "segmented", "ipv6": "segmented"}
    # Others may cut on this machine at the same time.
    found = {(each["id"], *each["subjects"]) for each in answer["findings"]}
    assert ("C09", uplink) in found
