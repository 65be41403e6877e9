# SPDX-License-Identifier: Apache-2.0
"""Answers without an end: neither is waited for."""

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from agent import inquiry
from agent.errors import AgentError

PIECE = b"[" * 65536


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends pieces for as long as anybody reads; a few bytes each on /drip."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            try:
                if self.path.startswith("/drip"):
                    self.wfile.write(b"[")
                    time.sleep(0.05)  # the drip is what is tested
                else:
                    self.wfile.write(PIECE)
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


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


def test_a_drip(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "_PATIENCE_SECONDS", 0.5)
    with pytest.raises(OSError, match="does not end"):
        inquiry.fetch(f"{endless}/drip", None)
