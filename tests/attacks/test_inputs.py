# SPDX-License-Identifier: Apache-2.0
"""An API server that sends bombs: a limited memory, one sentence, and right answers
as soon as it sends what it should.
"""

import contextlib
import gzip
import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from agent.cluster.kube import connect
from agent.lab.netns import wait_until
from tests.process import unreadable_file
from tests.server import pki

MAX_RSS = 100 << 20
NAMES = ("configmap", "nodeconfigs", "pods")
# What the agent does with an API server, in a process whose memory is nobody else's.
CHILD = """
import json, sys
import structlog
from agent.cluster import kube
from agent.cluster.wanted import Cluster
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
for name, value in json.loads(sys.argv[2]).items():
    assert hasattr(kube, name)
    setattr(kube, name, value)
with Cluster(lambda: kube.connect(sys.argv[1]), "node1", pods=True) as cluster:
    for _ in sys.stdin:
        state = cluster.state()
        print(json.dumps({
            "problems": state.problems,
            "up": [name for name, source in state.sources.items() if source.up],
            "values": state.wanted and state.wanted.values,
        }), flush=True)
"""
Send = Callable[[bytes], None]
Behave = Callable[[str, Send], None]


def listed(*items: dict[str, Any]) -> bytes:
    return json.dumps({"metadata": {"resourceVersion": "1"}, "items": items}).encode()


def named(name: str, **more: object) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "kube-system", "resourceVersion": "1"}
    return {"metadata": metadata, **more}


CONFIG = {"enable-ipv4-big-tcp": "true"}
GOOD = {
    "configmap": listed(named("cilium-config", data=CONFIG)),
    "nodeconfigs": listed(),
    "pods": listed(named("a", status={"podIPs": [{"ip": "10.0.0.1"}]})),
}
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"  # until the connection ends


def whole(body: bytes, *headers: str) -> bytes:
    lines = ("HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def name_of(path: str) -> str:
    resource = path.partition("?")[0].rpartition("/")[2]
    return {"configmaps": "configmap", "ciliumnodeconfigs": "nodeconfigs"}.get(
        resource, resource
    )


@dataclass
class ApiServer:
    """One that behaves well, but for what `bomb` does instead."""

    port: int = 0
    bomb: Behave | None = None
    targets: tuple[str, ...] = NAMES
    watch: bool = False  # the bomb is for watches, not for lists
    requests: list[tuple[float, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    well: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def behave_well(self) -> None:
        """From now on. Watches that stand end, as the server's do after a while."""
        self.bomb = None
        self.well.set()

    def answer(self, path: str, send: Send) -> None:
        watch = "watch=true" in path
        self.requests.append((time.monotonic(), path))
        if self.bomb and watch is self.watch and name_of(path) in self.targets:
            self.bomb(path, send)
        elif watch:
            send(ENDLESS)
            (self.over if self.well.is_set() else self.well).wait(60)
        else:
            send(whole(GOOD[name_of(path)]))


@contextlib.contextmanager
def api_server(
    context: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[ApiServer]:
    this = ApiServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            this.tokens.append(self.headers.get("Authorization", ""))
            with contextlib.suppress(OSError):
                this.answer(self.path, self.connection.sendall)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> Any:
            connection, address = super().get_request()
            connection.settimeout(10)
            if context:
                connection = context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            return connection, address

        def handle_error(self, *_: object) -> None:
            """A client that does not trust us is none of our errors."""

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        this.port = server.server_address[1]
        try:
            yield this
        finally:
            this.behave_well()
            this.over.set()
            server.shutdown()
            thread.join()


def kubeconfig(folder: Path, server: str, **cluster: str) -> str:
    path = folder / "config"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return str(path)


class Child:
    """A process that follows an API server."""

    def __init__(self, config: str, **limits: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, config, json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def state(self) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def problem(self, names: tuple[str, ...], sentence: str) -> bool:
        problems = self.state()["problems"]
        return all(re.search(sentence, problems.get(name, "")) for name in names)

    def is_right(self) -> bool:
        state = self.state()
        return set(state["up"]) == set(NAMES) and state["values"] == CONFIG

    @property
    def peak(self) -> int:
        """Bytes of RSS, at the most so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", text)
        assert found
        return int(found[1]) << 10


def again(*parts: bytes, first: bytes = b"") -> Behave:
    """Parts without end."""
    block = b"".join(parts) * (65536 // sum(map(len, parts)) + 1)

    def send_for_ever(_: str, send: Send) -> None:
        send(ENDLESS + first)
        while True:
            send(block)

    return send_for_ever


def at_once(content: bytes) -> Behave:
    return lambda _, send: send(content)


def new_objects(_: str, send: Send) -> None:
    """Events, each of another object."""
    send(ENDLESS)
    for number in range(1 << 30):
        event = {"type": "ADDED", "object": named(f"{number}", data=CONFIG)}
        send(json.dumps(event).encode() + b"\n")


HEAD = b'{"metadata":{"resourceVersion":"1"},"items":['
FULL = (16 << 20) - 1000
BIG_OBJECT = json.dumps(named("a", data={"a": [[]] * 200_000}), separators=(",", ":"))
LISTS: dict[str, tuple[Behave, str]] = {
    "gzip": (
        at_once(whole(gzip.compress(bytes(100 << 20)), "Content-Encoding: gzip")),
        "has the encoding gzip, which is not accepted",
    ),
    "no end": (again(b'{"metadata":{}},', first=HEAD), "longer than 16,777,216 bytes"),
    "spaces": (again(b" "), "longer than 16,777,216 bytes"),
    "empty objects": (
        at_once(whole(HEAD + b"{}," * (FULL // 3) + b"{}]}")),
        "lists more than 5,000 objects",
    ),
    "empty lists": (
        at_once(whole(HEAD + b"[]," * (FULL // 3) + b"[]]}")),
        "answer is not a JSON object",
    ),
    "big objects": (
        at_once(whole(HEAD + b",".join([BIG_OBJECT.encode()] * 20) + b"]}")),
        "an object of over 100,000 values",
    ),
    "one big object": (
        at_once(whole(HEAD + b'{"data":[' + b"[]," * (FULL // 3) + b"[]]}]}")),
        "an object of more than 1,048,576 bytes",
    ),
    "nested": (at_once(whole(HEAD + b'{"data":' + b"[" * FULL)), "answer is not JSON"),
    "what nobody reads": (
        at_once(whole(b'{"x":[' + b"[]," * (FULL // 3) + b"[]]}")),
        "sends no list of objects",
    ),
    "a part": (
        at_once(
            whole(b'{"metadata":{"resourceVersion":"1","continue":"x"},"items":[]}')
        ),
        "sends an incomplete list",
    ),
}
WATCHES: dict[str, tuple[Behave, str]] = {
    "a line without end": (again(b"a"), "an event of more than 1,048,576 bytes"),
    "new objects": (new_objects, "has more than 5,000 objects"),
    "many lists": (
        again(b'{"type":"ADDED","object":[' + b"[]," * 300_000 + b"[]]}\n"),
        "an object of over 100,000 values",
    ),
    "a long name": (
        again(
            json.dumps({"type": "ADDED", "object": named("a" * 254)}).encode() + b"\n"
        ),
        "sends an invalid event",
    ),
}


@pytest.mark.parametrize(
    ("bomb", "targets"),
    [
        ("gzip", ("configmap",)),  # which is asked first, and alone
        ("no end", ("configmap",)),
        *((bomb, ("nodeconfigs", "pods")) for bomb in LISTS),  # both at once
        *((bomb, ("configmap",)) for bomb in WATCHES),
    ],
)
def test_bombs(bomb: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    behave, sentence = (LISTS | WATCHES)[bomb]
    with api_server() as server:
        server.bomb, server.targets = behave, targets
        server.watch = bomb in WATCHES
        with Child(kubeconfig(tmp_path, f"http://127.0.0.1:{server.port}")) as child:
            wait_until(lambda: child.problem(targets, sentence), sentence)
            begun = len(server.requests)
            time.sleep(1)
            assert len(server.requests) - begun < 20  # the waits become longer
            server.behave_well()
            wait_until(child.is_right, "the right answer")
            assert child.peak < MAX_RSS


@pytest.mark.parametrize(
    ("head", "slow", "sentence"),
    [
        (
            b"",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000,
            "sends no complete header in 1 s",
        ),
        (ENDLESS, b" " * 1000, "takes more than 2 s"),
    ],
)
def test_an_answer_byte_by_byte(
    head: bytes, slow: bytes, sentence: str, tmp_path: Path
) -> None:
    def slowly(_: str, send: Send) -> None:
        send(head)
        for byte in slow:
            send(bytes([byte]))
            time.sleep(0.05)

    with api_server() as server:
        server.bomb = slowly
        config = kubeconfig(tmp_path, f"http://127.0.0.1:{server.port}")
        with Child(config, _HEAD_SECONDS=1, _ANSWER_SECONDS=2) as child:
            wait_until(lambda: child.problem(("configmap",), sentence), sentence)
            server.behave_well()
            wait_until(child.is_right, "the right answer")


def tls(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return context


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Of an authority, `ca`, and of another one; both sign a server."""
    for authority, name in (("ca", "server"), ("other", "impostor")):
        pki.authority(tmp_path, authority)
        pki.certificate(tmp_path, name, authority)
    return tmp_path


def test_the_wrong_authority(certificates: Path) -> None:
    """Nothing is told to a server whose certificate somebody else has signed."""
    with api_server(tls(certificates, "impostor")) as impostor:
        server = f"https://127.0.0.1:{impostor.port}"
        ca = {"certificate-authority": str(certificates / "ca.crt")}
        with Child(kubeconfig(certificates, server, **ca)) as child:
            sentence = "certificate verify failed"
            wait_until(lambda: child.problem(("configmap",), sentence), sentence)
        assert impostor.tokens == []


def test_slow_tls(certificates: Path) -> None:
    """A handshake byte by byte ends in time; so does a head, inside of TLS."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.sendall(b"\x16\x03\x03\x10\x00")  # a record of 4 KiB
                        while not stop.wait(0.05):
                            connection.sendall(b"\x02")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            server = f"https://127.0.0.1:{listener.getsockname()[1]}"
            ca = {"certificate-authority": str(certificates / "ca.crt")}
            config = kubeconfig(certificates, server, **ca)
            with Child(config, _CONNECT_SECONDS=1) as child:
                sentence = "handshake.* timed out"
                wait_until(lambda: child.problem(("configmap",), sentence), sentence)
        finally:
            stop.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    with api_server(tls(certificates, "server")) as slow:

        def never(_: str, send: Send) -> None:
            while True:
                send(b"H")
                time.sleep(0.05)

        slow.bomb = never
        config = kubeconfig(certificates, f"https://127.0.0.1:{slow.port}", **ca)
        with Child(config, _HEAD_SECONDS=1) as child:
            sentence = "no complete header in 1 s"
            wait_until(lambda: child.problem(("configmap",), sentence), sentence)
            slow.behave_well()
            wait_until(child.is_right, "the right answer")


def test_a_token_that_is_renewed(certificates: Path) -> None:
    """The next request has the new one, as soon as the kubelet has written it."""
    account = certificates / "account"
    account.mkdir()
    (certificates / "ca.crt").rename(account / "ca.crt")
    token = account / "token"
    token.write_text("first\n")
    with api_server(tls(certificates, "server")) as server:
        environ = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(server.port),
        }
        kube = connect("", environ, str(account))
        assert kube
        path = "/api/v1/pods"
        kube.get(path, {}, 10)
        fresh = account / "fresh"
        fresh.write_text("second")
        fresh.rename(token)
        kube.get(path, {}, 10)
        assert server.tokens == ["bearer first", "bearer second"]
        token.unlink()
        os.mkfifo(token)
        with pytest.raises(OSError, match="not a regular file"):
            kube.get(path, {}, 10)
        assert len(server.tokens) == 2


@pytest.mark.parametrize("kind", ["fifo", "device", "long"])
@pytest.mark.parametrize("which", ["kubeconfig", "ca", "token file", "service account"])
def test_files_that_are_none(which: str, kind: str, tmp_path: Path) -> None:
    """None is waited for, none is read without end: one sentence says which."""
    bad = tmp_path / "bad"
    unreadable_file(bad, kind)
    environ: dict[str, str] = {}
    config, account = str(bad), tmp_path / "account"
    if which == "ca":
        ca = {"certificate-authority": str(bad)}
        config = kubeconfig(tmp_path, "https://127.0.0.1:1", **ca)
    elif which == "token file":
        config = kubeconfig(tmp_path, "https://127.0.0.1:1")
        text = Path(config).read_text()
        Path(config).write_text(text.replace('"token"', '"tokenFile"'))
        (tmp_path / "secret").symlink_to(bad)
    elif which == "service account":
        account.mkdir()
        (account / "token").symlink_to(bad)
        environ = {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "1"}
        config = ""
    sentence = "longer than 1,048,576 bytes" if kind == "long" else "not a regular file"
    with pytest.raises(OSError, match=sentence):
        connect(config, environ, str(account))
