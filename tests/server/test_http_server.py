# SPDX-License-Identifier: Apache-2.0
"""The server under clients that are slow on purpose, or too many."""

import contextlib
import gc
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import pytest
import structlog

from agent.lab.netns import wait_until
from agent.server import http_server, routes
from agent.server.auth import Authenticator
from agent.server.http_server import Request, Server
from agent.server.routes import make_routes
from agent.settings import Address
from agent.snapshot.snapshot import Snapshot
from tests.process import any_certificate, fetch, fetch_from
from tests.server import pki
from tests.snapshot.test_sample import World

WORLD = World()


def snapshot(_: float = 0) -> Snapshot:
    return WORLD.collector.snapshot()


@contextlib.contextmanager
def served(
    observe: Callable[[float], Snapshot] = snapshot, auth: Authenticator | None = None
) -> Iterator[int]:
    """The port of a server; its threads are gone at the end."""
    before = threading.active_count()
    table = make_routes(snapshot, observe)
    with Server(Address("127.0.0.1", 0), auth) as server, server.serving(table):
        yield server.port
    del server, table, auth  # with them the threads of their pools
    gc.collect()
    wait_until(lambda: threading.active_count() <= before, "its threads to end", 20)


def encrypting(folder: Path) -> Authenticator:
    pki.authority(folder)
    pki.certificate(folder, "server")
    files = "{cert_file: server.crt, key_file: server.key}"
    (folder / "web.yaml").write_text(f"tls_server_config: {files}\n")
    return Authenticator(str(folder / "web.yaml"))


@pytest.fixture(params=["http", "https"])
def scheme(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[str, Authenticator | None]:
    """And what makes it so."""
    if request.param == "http":
        return "http", None
    return "https", encrypting(tmp_path)


def connected(
    stack: contextlib.ExitStack, port: int, source: str = ""
) -> socket.socket:
    to = ("127.0.0.1", port)
    made = socket.create_connection(to, 60, (source or "127.0.0.1", 0))
    return stack.enter_context(made)


def answer(port: int, said: bytes) -> bytes:
    """All that the server sends until it closes the connection."""
    with contextlib.ExitStack() as stack:
        client = connected(stack, port)
        client.sendall(said)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_many_that_say_nothing_keep_nobody_away(
    scheme: tuple[str, Authenticator | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_REQUEST_SECONDS", 600)  # or time would make room
    monkeypatch.setattr(http_server, "_GRACE_SECONDS", 0)  # they come too fast
    name, auth = scheme
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(served(auth=auth))
        for _ in range(3 * http_server._MAX_CONNECTIONS):
            connected(stack, port).sendall(b"G" if name == "http" else b"\x16")
        for page in ("livez", "readyz", "metrics"):
            assert fetch(f"{name}://127.0.0.1:{port}/{page}")[0] == 200


@pytest.fixture
def four(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[contextlib.ExitStack, int]]:
    """The port of a server for four connections, and a stack to open them in."""
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 4)
    with contextlib.ExitStack() as stack:
        yield stack, stack.enter_context(served())


def test_who_is_slow_for_himself_is_not_sent_away_for_a_crowd(
    four: tuple[contextlib.ExitStack, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, port = four
    monkeypatch.setattr(http_server, "_REQUEST_SECONDS", 600)
    slow = connected(stack, port, "127.0.0.2")
    slow.sendall(b"GET /livez HT")
    for _ in range(12):
        connected(stack, port).sendall(b"G")
    assert fetch_from("127.0.0.3", port, "/livez") == (200, "ok\n")
    slow.sendall(b"TP/1.0\r\n\r\n")
    assert slow.recv(100).startswith(b"HTTP/1.1 200")


def test_beyond_the_cap_one_of_the_crowd_is_closed_at_once(
    four: tuple[contextlib.ExitStack, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newcomer, as long as none of its own address had the time to ask."""
    stack, port = four
    monkeypatch.setattr(http_server, "_GRACE_SECONDS", 600)
    first = [connected(stack, port) for _ in range(4)]
    fifth = connected(stack, port)
    assert fifth.recv(1) == b""
    assert fetch_from("127.0.0.2", port, "/livez") == (200, "ok\n")
    assert first[0].recv(1) == b""  # the oldest had to make room
    first[1].sendall(b"GET /livez HTTP/1.0\r\n\r\n")
    assert first[1].recv(100).startswith(b"HTTP/1.1 200")


def test_a_request_has_one_deadline_however_it_drips(
    scheme: tuple[str, Authenticator | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_REQUEST_SECONDS", 0.5)
    name, auth = scheme
    with served(auth=auth) as port, contextlib.ExitStack() as stack:
        to = ("127.0.0.1", port)
        connection = stack.enter_context(socket.create_connection(to))
        begun = time.monotonic()
        # It ends at the deadline, which a busy machine may reach in the handshake.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            if name == "https":
                encrypted = any_certificate().wrap_socket(connection)
                connection = stack.enter_context(encrypted)
            connection.settimeout(0.1)  # from byte to byte
            while time.monotonic() - begun < 60:
                connection.send(b"G")
                with contextlib.suppress(TimeoutError):
                    assert connection.recv(100) == b""
                    break
            else:
                pytest.fail("the server has not ended it")


def test_who_does_not_read_is_closed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http_server, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(routes, "_PAGE", "{version}{kernel}" + "x" * (64 << 20))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(Address("127.0.0.1", 0)))
        stack.enter_context(server.serving(make_routes(snapshot, snapshot)))
        client = connected(stack, server.port)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        wait_until(lambda: server._connections, "the connection")
        wait_until(lambda: not server._connections, "its end")
    assert capfd.readouterr().err == ""


def test_ten_requests_need_one_handshake(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(served(auth=encrypting(tmp_path)))
        context = any_certificate()
        plain = connected(stack, port)
        encrypted = stack.enter_context(context.wrap_socket(plain))
        for _ in range(10):
            encrypted.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            said = b""
            while not said.endswith(b"ok\n"):
                said += (got := encrypted.recv(1000))
                assert got


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * (33 << 10) + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 200 + b"\r\n", 431),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),  # without a host
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\nA: b\0\r\n\r\n", 400),
        (b"\xff\xfe /livez HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (b"GET http://x/livez HTTP/1.0\r\n\r\n", 200),
        (b"GET //livez HTTP/1.0\r\n\r\n", 404),
        (b"GET http://[/livez HTTP/1.0\r\n\r\n", 200),
        (b"GET x HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_heads(request_bytes: bytes, status: int) -> None:
    """One answer each, then the connection is closed; no Python version is told."""
    with structlog.testing.capture_logs() as logs, served() as port:
        said = answer(port, request_bytes)
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", said) == [b"%d" % status]
    assert b"Python" not in said
    assert logs == []


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: %d\r\n" % len(SMUGGLED),
        b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(SMUGGLED),
        b"Content-Length: +0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
    ],
)
def test_what_follows_as_a_body_is_no_request(headers: bytes) -> None:
    """As a proxy before us may understand it otherwise: the connection is closed."""
    first = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
    with (
        structlog.testing.capture_logs() as logs,
        served() as port,
        contextlib.suppress(ConnectionResetError),
    ):
        assert answer(port, first + SMUGGLED).count(b"HTTP/1.1 ") == 1
    assert logs == []


def test_requests_in_one_packet_are_answered_in_order() -> None:
    several = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 3
    last = b"HEAD / HTTP/1.0\r\n\r\n"
    with served() as port:
        said = answer(port, several + last)
    assert said.count(b"\r\n\r\nok\nHTTP/1.1 200 OK\r\n") == 3
    assert said.endswith(b"\r\n\r\n")


class Held:
    """Observes until the test lets it end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.end = threading.Event()

    def __call__(self, seconds: float) -> Snapshot:
        self.begun.release()
        assert self.end.wait(seconds)
        return snapshot()


def test_not_everybody_observes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two do; snapshots, metrics and probes have turns of their own."""
    monkeypatch.setattr(routes, "_MAX_OBSERVERS", 2)
    observe = Held()
    with served(observe) as port, ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{port}"
        told = [pool.submit(fetch, f"{url}/api/snapshot?seconds=60") for _ in range(2)]
        for _ in told:
            assert observe.begun.acquire(timeout=60)
        busy = "too many requests at once; try again\n"
        try:
            assert fetch(f"{url}/api/snapshot?seconds=60") == (503, busy)
            for page in ("livez", "readyz", "metrics", "api/snapshot"):
                assert fetch(f"{url}/{page}")[0] == 200
        finally:
            observe.end.set()
        assert [each.result()[0] for each in told] == [200, 200]
        assert fetch(f"{url}/api/snapshot?seconds=60")[0] == 200


def test_many_of_one_address_are_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_MAX_PER_CLIENT", 1)
    observe = Held()
    with served(observe) as port, ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{port}"
        first = pool.submit(fetch, f"{url}/api/snapshot?seconds=60")
        try:
            assert observe.begun.acquire(timeout=60)
            assert fetch(f"{url}/api/snapshot")[0] == 503
            assert fetch(f"{url}/metrics")[0] == 200
            assert fetch_from("127.0.0.2", port, "/api/snapshot")[0] == 200
        finally:
            observe.end.set()
        assert first.result()[0] == 200
        assert fetch(f"{url}/metrics")[0] == 200


def test_who_resets_before_the_handshake_is_no_event(tmp_path: Path) -> None:
    """As a load balancer that only looks whether somebody listens."""
    with (
        structlog.testing.capture_logs() as logs,
        served(auth=encrypting(tmp_path)) as port,
    ):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", port)) as client:
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert fetch(f"https://127.0.0.1:{port}/livez") == (200, "ok\n")
    assert logs == []


def test_readiness_reads_once_a_second_whoever_asks() -> None:
    reads = []

    def source() -> Snapshot:
        reads.append(time.monotonic())
        return snapshot()

    handler = make_routes(source, snapshot)["/readyz"].handler
    begun = time.monotonic()
    while len(reads) < 2:
        assert handler(Request("GET", "/readyz")).body == b"ok\n"
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    "version", ["x", ".", "1.", "1..0", "", "9" * 5000, "\N{ARABIC-INDIC DIGIT ONE}"]
)
@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
def test_a_version_that_is_none(kind: str, version: str) -> None:
    headers = {"accept": f"{kind};version={version};q=0.5"}
    handler = make_routes(snapshot, snapshot)["/metrics"].handler
    response = handler(Request("GET", "/metrics", headers=headers))
    assert response.status == HTTPStatus.OK
    assert response.body
