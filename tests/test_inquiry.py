# SPDX-License-Identifier: Apache-2.0
"""Answers without an end, and refusals that are cut off: none is waited for."""

import contextlib
import http.server
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from agent import inquiry
from agent.errors import AgentError
from tests.process import serving

PIECE = b"[" * 65536


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends more pieces than anybody reads; a byte each on /drip, as a refusal on
    /drip/503.
    """

    def do_GET(self) -> None:
        self.send_response(503 if "503" in self.path else 200)
        self.end_headers()
        drips = self.path.startswith("/drip")
        with contextlib.suppress(OSError):  # who asked has read enough
            for _ in range(300 if drips else 2000):
                self.wfile.write(b"[" if drips else PIECE)
                if drips:
                    time.sleep(0.05)  # the drip is what is tested

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://fd00::7:19715", "http://[fd00::7]:19715"),
        ("https://::ffff:192.0.2.7:1/", "https://[::ffff:192.0.2.7]:1/"),
        ("http://[fd00::7]:19715", "http://[fd00::7]:19715"),
        ("http://192.0.2.7:19715", "http://192.0.2.7:19715"),
        ("http://feed:19715", "http://feed:19715"),
    ],
)
def test_an_address_of_either_family(url: str, address: str) -> None:
    assert inquiry.address(url) == address


def test_too_much(endless: str) -> None:
    with pytest.raises(AgentError, match="more than 64 MiB"):
        inquiry.fetch(endless, None)


@pytest.fixture
def a_second_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the whole answer; that of its socket is the machine's."""
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(inquiry, "time", clock)


@pytest.mark.usefixtures("a_second_a_look")
def test_a_drip(endless: str) -> None:
    with pytest.raises(OSError, match="does not end"):
        inquiry.fetch(f"{endless}/drip", None)


@contextlib.contextmanager
def refusing(answer: bytes) -> Iterator[str]:
    """Who answers so, and closes the connection."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nabc", "502: abc$"),
        ("502 Bad\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "502: $"),
        ("500 Bad\r\nContent-Length: 999\r\n\r\nwhy", "500: why$"),
        ("500 Bad\r\n\r\n" + "x" * 300, "500: x{200}$"),
    ],
)
def test_a_refusal_that_is_cut_off(answer: str, said: str) -> None:
    """As a proxy does it that loses who is behind it."""
    with (
        refusing(b"HTTP/1.1 " + answer.encode()) as url,
        pytest.raises(AgentError, match=said),
    ):
        inquiry.fetch(url, None)


@pytest.mark.usefixtures("a_second_a_look")
def test_a_refusal_that_drips(endless: str) -> None:
    """The 200 bytes that are shown are not waited for."""
    with pytest.raises(AgentError, match=r"503: \[{1,199}$"):
        inquiry.fetch(f"{endless}/drip/503", None)
