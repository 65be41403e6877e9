# SPDX-License-Identifier: Apache-2.0
"""The small web server of the agent: metrics for Prometheus, JSON for `check`."""

import contextlib
import errno
import io
import json
import math
import platform
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any, Protocol
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog

from agent import __version__
from agent.errors import AgentError, BadValueError
from agent.settings import Address
from agent.snapshot.snapshot import Snapshot
from agent.views.answer import WsgiApp, answer
from agent.views.exporter import PodsOf, metrics_application
from agent.views.picture import picture
from agent.views.places import Client, Place, Places, Turns

_REQUEST_SECONDS = 10
_PAUSE_SECONDS = 0.05
_GRACE_SECONDS = 0.1  # for a request that has come to be read
_ROOM_SECONDS = 1.0  # until who was sent away is gone
_MOST_SECONDS = 60  # that a request may observe for
# At once. Who observes, is being answered or waits for that (or for agent.views.guard)
# cannot be sent away: so many that there is always a place for who comes.
_MOST_CONNECTIONS = 64
_MOST_ANSWERS = 32
_MOST_OBSERVERS = 16  # of the answers
_MOST_WAITING = 8
_MOST_OF_ONE = 8  # address
_WAIT_SECONDS = 2.0
_READY_SECONDS = 1.0  # for which a good reading is good
_PLACE = "bigtcp_agent.place"  # in the environ

_log = structlog.get_logger(__name__)

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>bigtcp-agent</title>
<meta name="viewport" content="width=device-width">
<style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;
max-width:40rem;margin:3rem auto;padding:0 1rem}}code{{font-size:.95em}}
pre{{overflow-x:auto}}</style>
</head><body><h1>bigtcp-agent {version}</h1>
<p>Is BIG TCP really on? This agent counts the length of every packet (skb) that
this node sends and receives, in the kernel (Linux {kernel}).</p>
<ul><li><a href="metrics"><code>/metrics</code></a>: histograms, device sizes, the
verdict and how Cilium runs, for Prometheus</li>
<li><a href="api/snapshot"><code>/api/snapshot</code></a>: the verdict, what it
rests on and what to do, as JSON (<code>bigtcp-agent check</code> reads it)</li>
<li><a href="readyz"><code>/readyz</code></a>: 200 once the maps can be read</li>
<li><a href="livez"><code>/livez</code></a>: 200 while this process answers</li></ul>
<p>Share of the bytes sent in packets above 64 KiB, in PromQL:</p>
<pre><code>sum(rate(bigtcp_big_skb_bytes_total{{hook="net_dev_start_xmit",scope="node"}}[5m]))
/ sum(rate(bigtcp_skb_length_bytes_sum{{hook="net_dev_start_xmit",scope="node"}}[5m]))
</code></pre></body></html>
"""


class Gate(Protocol):
    """Who may ask; agent.views.guard.Guard is one."""

    def context(self) -> ssl.SSLContext | None:
        """For the next connection; None: it is not encrypted."""

    def guarding(self, app: WsgiApp) -> WsgiApp:
        """The application for those alone who may ask."""


def _asked(
    environ: dict[str, str],
    source: Callable[[], Snapshot],
    observe: Callable[[float], Snapshot],
    observers: Turns,
) -> Snapshot:
    """The snapshot that a query asks for: ?seconds=N observes for so long."""
    values = parse_qs(environ.get("QUERY_STRING", "")).get("seconds", [])
    if not values:
        return source()
    try:
        seconds = float(values[-1])
    except ValueError:
        seconds = -1
    if not 0 < seconds <= _MOST_SECONDS:
        raise BadValueError(
            f"seconds={values[-1]} is no time to observe",
            f"use a number above 0, up to {_MOST_SECONDS}",
        )
    with observers.one(_address(environ)):
        return observe(seconds)


def _address(environ: dict[str, str]) -> str:
    return environ.get("REMOTE_ADDR", "")


def _readable(source: Callable[[], Snapshot]) -> Callable[[], None]:
    """Reads; not again so soon after a good reading, however many ask."""
    lock, last = threading.Lock(), -math.inf

    def read() -> None:
        nonlocal last
        with lock:
            if time.monotonic() - last >= _READY_SECONDS:
                source()
                last = time.monotonic()

    return read


def _metrics(
    app: WsgiApp, environ: dict[str, str], start: Callable[..., object]
) -> Iterable[bytes]:
    """What client_python's application does not take: HEAD, and versions of
    formats that are none.
    """
    accept = environ.get("HTTP_ACCEPT", "")
    version = r"[0-9]{1,9}(?:\.[0-9]{1,9})*"
    if re.search(rf"version=(?!{version}\s*(?:[;,]|$))", accept):
        accept = "*/*"
    asked = environ | {"REQUEST_METHOD": "GET", "HTTP_ACCEPT": accept}
    body = app(asked, start)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else body


def make_app(  # noqa: C901  a router is a list of cases
    source: Callable[[], Snapshot],
    observe: Callable[[float], Snapshot],
    pods: PodsOf | None = None,
) -> WsgiApp:
    """The web application: /metrics, /api/snapshot, /livez, /readyz and a page
    that links them.
    """
    metrics_app: WsgiApp = metrics_application(source, pods)
    answers = Turns(
        _MOST_ANSWERS, _MOST_OF_ONE, line=_MOST_WAITING, seconds=_WAIT_SECONDS
    )
    observers = Turns(_MOST_OBSERVERS, _MOST_OF_ONE)
    readable = _readable(source)
    page = _PAGE.format(version=__version__, kernel=platform.release())

    def app(  # noqa: C901  the same list
        environ: dict[str, str], start: Callable[..., object]
    ) -> Iterable[bytes]:
        def plain(status: HTTPStatus, text: str) -> list[bytes]:
            return answer(environ, start, status, text + "\n")

        def route() -> Iterable[bytes]:
            match environ["PATH_INFO"]:
                case "/metrics":
                    with answers.one(_address(environ)):
                        return _metrics(metrics_app, environ, start)
                case "/api/snapshot":
                    with answers.one(_address(environ)):
                        found = _asked(environ, source, observe, observers)
                        text = json.dumps(picture(found))
                    return answer(
                        environ, start, HTTPStatus.OK, text, "application/json"
                    )
                case "/livez":
                    return plain(HTTPStatus.OK, "ok")
                case "/readyz":
                    readable()
                    return plain(HTTPStatus.OK, "ok")
                case "/":
                    return answer(environ, start, HTTPStatus.OK, page, "text/html")
            return plain(HTTPStatus.NOT_FOUND, "not here; see /")

        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET")
        try:
            return route()
        except BadValueError as err:
            return plain(HTTPStatus.BAD_REQUEST, f"{err.message}; {err.hint}")
        except OSError as err:  # there is no reading yet, or too many ask
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, str(err))

    return app


def make_metrics_app(metrics_app: WsgiApp) -> WsgiApp:
    """The web application of metrics alone: /metrics and /livez."""

    def app(environ: dict[str, str], start: Callable[..., object]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, text = HTTPStatus.METHOD_NOT_ALLOWED, "only GET"
        elif environ["PATH_INFO"] == "/metrics":
            return _metrics(metrics_app, environ, start)
        elif environ["PATH_INFO"] == "/livez":
            status, text = HTTPStatus.OK, "ok"
        else:
            status, text = HTTPStatus.NOT_FOUND, "not here; see /metrics"
        return answer(environ, start, status, text + "\n")

    return app


class _Handler(WSGIRequestHandler):
    server: "Server"

    def __init__(
        self, connection: socket.socket, address: Any, server: "Server", place: Place
    ) -> None:
        self._place = place
        super().__init__(connection, address, server)

    def setup(self) -> None:
        """A client that says nothing, or reads nothing, keeps no thread."""
        super().setup()
        self.rfile.close()
        client = Client(self.connection, _REQUEST_SECONDS)
        self.rfile = io.BufferedReader(client)
        self.wfile = client  # type: ignore[assignment]  # it need not be buffered

    def log_message(self, format: str, *args: object) -> None:
        pass  # never a line per scrape

    def get_environ(self) -> dict[str, Any]:
        """With what is known of the client's certificate, as other servers name it."""
        environ = super().get_environ() | {_PLACE: self._place}
        if isinstance(self.connection, ssl.SSLSocket):
            shown = self.connection.getpeercert(binary_form=True)
            environ |= {
                "HTTPS": "on",
                "SSL_CLIENT_VERIFY": "SUCCESS" if shown else "NONE",
            }
        return environ


def _family(address: Address) -> socket.AddressFamily:
    """Of the address; of all addresses IPv6, which takes IPv4 along."""
    if not address.host:
        return socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return found[0][0]


def _is_connected(client: socket.socket) -> bool:
    """False where it has reset meanwhile, as load balancers do that only look whether
    somebody listens: ssl would leave its socket open, and call it an error.
    """
    try:
        client.getpeername()
    except OSError:
        return False
    return True


class Server(ThreadingMixIn, WSGIServer):
    """Listens from the beginning, so that a port that is taken is told at once;
    then serves a thread per request, so many at once.
    """

    daemon_threads = True
    request_queue_size = 128
    # Another agent on this port must be an error, not a second listener.
    allow_reuse_port = False

    def __init__(self, address: Address, gate: Gate | None = None) -> None:
        self._gate = gate
        self.places = Places(_MOST_CONNECTIONS, _GRACE_SECONDS)
        try:
            self.address_family = _family(address)
            # The handler is made in finish_request, which has a place for it.
            super().__init__((address.host, address.port), WSGIRequestHandler)
        except (socket.gaierror, UnicodeError) as err:
            why = getattr(err, "strerror", None) or "no host name"
            raise AgentError(
                f"cannot listen on {address}: {why}",
                "give an address of this machine, or only :PORT",
            ) from err
        except OSError as err:
            hint = "give an address of this machine, or only :PORT"
            if err.errno == errno.EADDRINUSE:
                hint = "another agent runs here, or choose another port with --listen"
            raise AgentError(
                f"cannot listen on {address}: {(err.strerror or '').lower()}", hint
            ) from err

    @contextlib.contextmanager
    def serving(self, app: WsgiApp) -> Iterator[None]:
        """Answer with this application meanwhile."""
        self.set_app(self._answering(self._gate.guarding(app) if self._gate else app))
        thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            self.shutdown()

    def _answering(self, app: WsgiApp) -> WsgiApp:
        def answering(
            environ: dict[str, Any], start: Callable[..., object]
        ) -> Iterable[bytes]:
            with self.places.answering(environ[_PLACE]):
                return app(environ, start)

        return answering

    def get_request(self) -> Any:
        """Accept; without a free file descriptor rather wait than spin."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread; closed where there is no place for it."""
        if not self.places.take(request, client_address[0], _ROOM_SECONDS):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # there is no thread that could leave
            self.places.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.leave(request)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the thread of the request, so that a slow handshake stops nobody."""
        context = self._gate.context() if self._gate else None
        with contextlib.ExitStack() as closing, self.places.served(request) as place:
            if context is None:
                _Handler(request, client_address, self, place)
                return
            if not _is_connected(request):
                return
            request.settimeout(_REQUEST_SECONDS)
            encrypted = closing.enter_context(
                context.wrap_socket(
                    request, server_side=True, do_handshake_on_connect=False
                )
            )
            self.places.encrypted(place, encrypted)
            encrypted.do_handshake()
            _Handler(encrypted, client_address, self, place)
            encrypted.settimeout(_PAUSE_SECONDS)  # who has read all may be gone
            with contextlib.suppress(OSError):
                encrypted.unwrap()

    def server_bind(self) -> None:
        """Bind without asking DNS for our own name, as the base class would."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        name, port = self.socket.getsockname()[:2]
        self.server_name, self.server_port = str(name), int(port)
        self.setup_environ()

    def handle_error(self, _request: object, client_address: object) -> None:
        """A client that goes away in the middle is no event; the rest is."""
        error = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError | ssl.SSLError):
            _log.error("request failed", client=str(client_address), exc_info=True)
