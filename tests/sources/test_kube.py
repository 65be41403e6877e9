# SPDX-License-Identifier: Apache-2.0
"""Which API server is asked, and what becomes of its odd answers."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cluster.api import RefusedError
from agent.cluster.kube import Kube, connect
from tests.process import free_port, serving

Send = Callable[[bytes], None]
WATCH = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def kubeconfig(folder: Path, port: int) -> str:
    path = folder / "config"
    cluster = {"server": f"http://127.0.0.1:{port}"}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return str(path)


@contextlib.contextmanager
def api_server(folder: Path, behave: Callable[[str, Send], None]) -> Iterator[Kube]:
    """`behave` gets the request's text and what sends bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                behave(f"{self.path}\n{self.headers}", self.connection.sendall)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        kube = connect(kubeconfig(folder, int(server.server_address[1])))
        assert kube
        try:
            yield kube
        finally:
            kube.close()


def says(status: str, body: bytes) -> Callable[[str, Send], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda _, send: send(head + body)


def test_none_is_absent(tmp_path: Path) -> None:
    nowhere = {"KUBECONFIG": f"{tmp_path}/none:{tmp_path}/neither"}
    assert connect("", nowhere) is None
    # A pod that was given no token may not ask.
    inside = nowhere | {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert connect("", inside, str(tmp_path)) is None


NAMES_NO_SERVER = """
clusters: [{name: c}]
contexts: [{name: x, context: {cluster: c}}]
current-context: x
"""


@pytest.mark.parametrize(
    "text",
    ["", "[", "a: b: c", "7", "clusters: 5", "current-context: x", NAMES_NO_SERVER],
)
def test_no_kubeconfig_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(OSError, match=str(path)) as caught:
        connect("", {"KUBECONFIG": str(path)})
    assert str(caught.value).isprintable()


def test_a_pod_without_certificate(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    environ = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(OSError, match="certification file"):
        connect("", environ, str(tmp_path))


def test_a_request(tmp_path: Path) -> None:
    asked = []

    def behave(request: str, send: Send) -> None:
        asked.append(request)
        says("200 OK", b'{"metadata": {"a": 1}, "kind": "Pod"}')(request, send)

    with api_server(tmp_path, behave) as kube:
        answer = kube.get("/api", {"fieldSelector": "metadata.name=x"}, 60)
    assert answer == {"metadata": {"a": 1}}  # and nothing that nobody reads
    assert asked[0].startswith("/api?fieldSelector=metadata.name%3Dx\n")
    assert "authorization: Bearer secret\n" in asked[0]


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        ("200 OK", b"<html>", "not JSON"),
        ("200 OK", b"[]", "not a JSON object"),
        ("200 OK", b"[" * 100_000, "not a JSON object"),
        ("200 OK", b"\xff", "not JSON"),
        ("403 Forbidden", b'{"message": "it is forbidden"}', r"\(403\): it is forb"),
        ("403 Forbidden", b"[]", r"refuses /api \(403\): Forbidden"),
        ("503 Service Unavailable", b"<html>", r"\(503\): Service Unavailable"),
        ("302 Found", b"", r"\(302\): Found"),
        ("what", b"", "no API server at http://127.0.0.1:"),
    ],
)
def test_odd_answers(status: str, body: bytes, sentence: str, tmp_path: Path) -> None:
    with (
        api_server(tmp_path, says(status, body)) as kube,
        pytest.raises(OSError, match=sentence) as caught,
    ):
        kube.get("/api", {}, 60)
    refused = isinstance(caught.value, RefusedError)
    assert refused is (status[0] in "345")


def test_a_watch_that_breaks_off(tmp_path: Path) -> None:
    def behave(_: str, send: Send) -> None:
        send(WATCH + b'9\r\n{"a": 1}\n\r\n9\r\n{"a"')

    with api_server(tmp_path, behave) as kube, kube.watch("/api", {}, 60) as events:
        assert next(events) == {"a": 1}
        with pytest.raises(OSError, match="no API server"):
            next(events)


def test_silence_ends(tmp_path: Path) -> None:
    over = threading.Event()

    def behave(_: str, send: Send) -> None:
        over.wait(600)
        send(b"")

    with api_server(tmp_path, behave) as kube:
        with pytest.raises(OSError, match="timed out"):
            kube.get("/api", {}, 0.2)
        over.set()


def test_close_ends_a_watch(tmp_path: Path) -> None:
    over = threading.Event()

    def behave(_: str, send: Send) -> None:
        send(WATCH + b'9\r\n{"a": 1}\n\r\n')
        over.wait(600)

    with api_server(tmp_path, behave) as kube, kube.watch("/api", {}, 600) as events:
        assert next(events) == {"a": 1}
        threading.Timer(0.1, kube.close).start()
        with pytest.raises(OSError, match="no API server"):
            next(events)
        over.set()


def test_nobody_there(tmp_path: Path) -> None:
    kube = connect(kubeconfig(tmp_path, free_port()))
    assert kube
    with pytest.raises(OSError, match=r"no API server at .*: Connection refused"):
        kube.get("/api", {}, 60)
