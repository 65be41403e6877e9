# SPDX-License-Identifier: Apache-2.0
"""The server under clients that are slow on purpose, or too many."""

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.lab.netns import wait_until
from agent.settings import Address
from agent.snapshot.snapshot import Snapshot
from agent.views import web
from agent.views.guard import Guard
from agent.views.web import Server, make_app
from tests.process import any_certificate, fetch, fetch_from
from tests.snapshot.test_sample import World
from tests.views import pki

WORLD = World()
THREADS = 64


def snapshot(_: float = 0) -> Snapshot:
    return WORLD.collector.snapshot()


@contextlib.contextmanager
def served(
    observe: Callable[[float], Snapshot] = snapshot, gate: Guard | None = None
) -> Iterator[int]:
    """The port of a server; its threads are gone at the end."""
    before = threading.active_count()
    with Server(Address("127.0.0.1", 0), gate) as server:
        with server.serving(make_app(snapshot, observe)):
            yield server.server_port
        wait_until(lambda: threading.active_count() <= before, "its threads to end", 20)


def encrypting(folder: Path) -> Guard:
    pki.authority(folder)
    pki.certificate(folder, "server")
    files = "{cert_file: server.crt, key_file: server.key}"
    (folder / "web.yaml").write_text(f"tls_server_config: {files}\n")
    return Guard(str(folder / "web.yaml"))


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Guard | None]:
    """And the gate for it."""
    if request.param == "http":
        return "http", None
    return "https", encrypting(tmp_path)


def test_many_that_say_nothing_keep_nobody_away(
    scheme: tuple[str, Guard | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do they make more threads than there are places."""
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 600)  # or time would make room
    monkeypatch.setattr(web, "_ROOM_SECONDS", 60)
    name, gate = scheme
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(served(gate=gate))
        for _ in range(3 * THREADS):
            many = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            many.sendall(b"G" if name == "http" else b"\x16")
        for page in ("livez", "readyz", "metrics"):
            assert fetch(f"{name}://127.0.0.1:{port}/{page}")[0] == 200
        # A thread has left its place a moment before it is gone.
        wait_until(
            lambda: threading.active_count() - before <= THREADS + 1, "no more threads"
        )


def test_a_request_has_one_deadline_however_it_drips(
    scheme: tuple[str, Guard | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 0.5)
    name, gate = scheme
    with served(gate=gate) as port, contextlib.ExitStack() as stack:
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


def test_who_does_not_read_keeps_no_thread(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(web, "_PAGE", "{version}{kernel}" + "x" * (64 << 20))
    with served() as port:
        before = threading.active_count()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            wait_until(lambda: threading.active_count() > before, "its thread")
            wait_until(lambda: threading.active_count() <= before, "its end")
    assert capfd.readouterr().err == ""


def test_many_that_do_not_read_keep_nobody_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "_MOST_CONNECTIONS", 4)
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 600)  # or time would make room
    monkeypatch.setattr(web, "_ROOM_SECONDS", 60)
    monkeypatch.setattr(web, "_PAGE", "{version}{kernel}" + "x" * (16 << 20))
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(served())
        for _ in range(12):
            many = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            many.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert fetch(f"http://127.0.0.1:{port}/livez")[0] == 200


class Held:
    """Observes until the test lets it end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.end = threading.Event()

    def __call__(self, seconds: float) -> Snapshot:
        self.begun.release()
        assert self.end.wait(seconds)
        return snapshot()


@pytest.mark.parametrize("limit", ["_MOST_OBSERVERS", "_MOST_ANSWERS"])
def test_not_everybody_is_answered_at_once(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two observe; where no more are answered at all, probes are."""
    monkeypatch.setattr(web, limit, 2)
    monkeypatch.setattr(web, "_WAIT_SECONDS", 0.1)
    observe = Held()
    with served(observe) as port, ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{port}"
        told = [pool.submit(fetch, f"{url}/api/snapshot?seconds=60") for _ in range(2)]
        for _ in told:
            assert observe.begun.acquire(timeout=60)
        busy = "too many ask at once; try again\n"
        try:
            assert fetch(f"{url}/api/snapshot?seconds=60") == (503, busy)
            for probe in ("livez", "readyz"):
                assert fetch(f"{url}/{probe}")[0] == 200
            others = 200 if limit == "_MOST_OBSERVERS" else 503
            for page in ("metrics", "api/snapshot"):
                assert fetch(f"{url}/{page}")[0] == others
        finally:
            observe.end.set()
        assert [each.result()[0] for each in told] == [200, 200]
        assert fetch(f"{url}/api/snapshot?seconds=60")[0] == 200


def test_many_of_one_address_are_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST_OF_ONE", 1)
    observe = Held()
    with served(observe) as port, ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{port}"
        first = pool.submit(fetch, f"{url}/api/snapshot?seconds=60")
        try:
            assert observe.begun.acquire(timeout=60)
            assert fetch(f"{url}/metrics")[0] == 503
            assert fetch_from("127.0.0.2", port, "/metrics")[0] == 200
        finally:
            observe.end.set()
        assert first.result()[0] == 200
        assert fetch(f"{url}/metrics")[0] == 200


def test_who_is_slow_for_himself_is_not_sent_away_for_a_crowd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "_MOST_CONNECTIONS", 4)
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 600)  # or time would make room
    monkeypatch.setattr(web, "_ROOM_SECONDS", 60)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(served())
        to = ("127.0.0.1", port)
        slow = stack.enter_context(
            socket.create_connection(to, source_address=("127.0.0.2", 0))
        )
        slow.sendall(b"GET /livez HT")
        for _ in range(12):
            stack.enter_context(socket.create_connection(to)).sendall(b"G")
        assert fetch(f"http://127.0.0.1:{port}/livez")[0] == 200
        slow.sendall(b"TP/1.0\r\n\r\n")
        slow.settimeout(60)
        assert slow.recv(100).startswith(b"HTTP/1.0 200")


def test_who_resets_before_the_handshake_is_no_event(tmp_path: Path) -> None:
    """As a load balancer that only looks whether somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            ours, address = listener.accept()
            linger = struct.pack("ii", 1, 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_until(lambda: select.select([ours], [], [], 0)[0], "the reset")
        with ours, Server(Address("127.0.0.1", 0), encrypting(tmp_path)) as server:
            assert server.places.take(ours, address[0], 0)
            server.finish_request(ours, address)


def test_readiness_reads_once_a_second_whoever_asks() -> None:
    reads = []

    def source() -> Snapshot:
        reads.append(time.monotonic())
        return snapshot()

    app = make_app(source, snapshot)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/readyz"}
    begun = time.monotonic()
    while len(reads) < 2:
        assert b"".join(app(environ, lambda *_: None)) == b"ok\n"
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    "version", ["x", ".", "1.", "1..0", "", "9" * 5000, "\N{ARABIC-INDIC DIGIT ONE}"]
)
@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
def test_a_version_that_is_none(kind: str, version: str) -> None:
    started = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/metrics",
        "HTTP_ACCEPT": f"{kind};version={version};q=0.5",
    }
    app = make_app(snapshot, snapshot)
    assert b"".join(app(environ, lambda *told: started.append(told)))
    assert started[0][0] == "200 OK"
