# SPDX-License-Identifier: Apache-2.0
"""A Cilium agent's socket, behind which stands whatever a test wants."""

import contextlib
import json
import socketserver
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.cluster.answer import decode
from agent.cluster.cilium import Config, Health, applied, decode_endpoints
from agent.snapshot.cilium import Applied
from tests.process import serving

WIRE = Path(__file__).parent / "wire"
Answers = dict[str, Any]
# Gets the URL that was asked for, and what sends bytes.
Behaviour = Callable[[str, Callable[[bytes], None]], None]


URLS = ("/v1/healthz", "/v1/config", "/v1/endpoint")
VERSIONS = tuple(
    sorted(
        (folder.name for folder in WIRE.iterdir() if folder.is_dir()),
        key=lambda name: [int(part) for part in name.split(".")],
    )
)


def recorded(version: str) -> dict[str, Answers]:
    """By state, what Cilium's own agent of this version answered (tests/cilium/record):
    by URL, and `runtime`, `state_directory`, `recorded` beside it.
    """
    return {
        file.stem: json.loads(file.read_text())
        for file in (WIRE / version).glob("*.json")
    }


def fields(value: Any, path: str = "") -> set[str]:
    """The paths of all fields in an answer; "[]" is any element of a list.

    What the agent runs with (daemonConfigurationMap) has Go's names of options, which
    are no fields: each counts, and not what is in it.
    """
    if isinstance(value, dict):
        inner = [(f"{path}.{key}", each) for key, each in value.items()]
        found = {name for name, _ in inner}
        if path.endswith(".daemonConfigurationMap"):
            return found
        return found.union(*(fields(each, name) for name, each in inner))
    if isinstance(value, list):
        return set().union(*(fields(each, f"{path}[]") for each in value))
    return set()


def fields_of(version: str) -> set[str]:
    """All that a recording of this version has, whatever the state."""
    states = recorded(version).values()
    return set().union(*(fields(state[url], url) for state in states for url in URLS))


def pod_endpoint(
    number: int, namespace: str, pod: str, **networking: Any
) -> dict[str, Any]:
    """A pod of /v1/endpoint, as Cilium 1.20 answers: the pod's name stands in that of
    a controller alone.
    """
    labels = [f"k8s:io.kubernetes.pod.namespace={namespace}"]
    return {
        "id": number,
        "status": {
            "controllers": [{"name": f"resolve-labels-{namespace}/{pod}"}],
            "external-identifiers": {"cni-attachment-id": f"{pod}-container:eth0"},
            "identity": {"id": 20000 + number, "labels": labels},
            "labels": {"realized": {}, "security-relevant": labels},
            "networking": networking,
            "state": "ready",
        },
    }


def pod_name(endpoint: dict[str, Any]) -> str:
    """namespace/pod of an endpoint that Cilium 1.20 answers; "" where it is no pod."""
    names = (
        controller["name"].partition("resolve-labels-")[2]
        for controller in endpoint["status"]["controllers"]
    )
    return next(filter(None, names), "")


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n".encode() + body


def answering(answers: Answers) -> Behaviour:
    return lambda url, send: send(http(json.dumps(answers[url]).encode()))


def understood(answers: Answers) -> Applied:
    """What we make of answers, without a socket."""
    health, config, endpoints = (json.dumps(answers[url]).encode() for url in URLS)
    return applied(
        decode(health, Health, "healthz"),
        decode(config, Config, "config"),
        decode_endpoints(endpoints),
        0.0,
    )


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
    with serving(Server(str(path), Handler)):
        yield
