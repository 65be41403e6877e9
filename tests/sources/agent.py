# SPDX-License-Identifier: Apache-2.0
"""A Cilium agent's socket, behind which stands whatever a test wants."""

import contextlib
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.cluster.answer import Answer
from agent.cluster.cilium import applied
from agent.snapshot.cilium import Applied

WIRE = Path(__file__).parent / "wire"
Answers = dict[str, Any]
# Gets the URL that was asked for, and what sends bytes.
Behaviour = Callable[[str, Callable[[bytes], None]], None]


def recorded(version: str) -> dict[str, Answers]:
    """What Cilium's own models of this version wrote: `off`, `on`, `runtime`."""
    found: dict[str, Answers] = json.loads(
        (WIRE / f"cilium-{version}.json").read_text()
    )
    return found


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body


def answering(answers: Answers) -> Behaviour:
    return lambda url, send: send(http(json.dumps(answers[url]).encode()))


def understood(answers: Answers) -> Applied:
    """What we make of answers, without a socket."""
    health = Answer.parse(json.dumps(answers["/v1/healthz"]).encode(), "healthz")
    config = Answer.parse(json.dumps(answers["/v1/config"]).encode(), "config")
    return applied(health, config.inner("status"), answers["/v1/endpoint"], 0.0)


@contextlib.contextmanager
def agent(
    path: Path, behave: Behaviour, requests: list[str] | None = None
) -> Iterator[None]:
    """Listens until the end; afterwards the socket is a dead file. The first line of
    each request is added to `requests`.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline().decode().strip()
            if requests is not None:
                requests.append(line)
            url = line.split()[1]
            while self.rfile.readline().strip():
                pass
            with contextlib.suppress(OSError):  # who asked has heard enough
                behave(url, self.request.sendall)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        block_on_close = False

    path.unlink(missing_ok=True)
    with Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
