# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 server: an event loop reads requests, threads answer them.

The loop never waits for a client, for a thread or for a password, so /livez answers
whatever the others do. h11 parses the heads, asyncio does TCP and TLS.
"""

import asyncio
import asyncio.sslproto
import contextlib
import errno
import heapq
import ipaddress
import itertools
import os
import resource
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import unquote

import h11
import structlog

from agent.errors import AgentError, BadValueError
from agent.settings import Address

_MAX_CONNECTIONS = 64
_MIN_CONNECTIONS = 4
_RESERVED_FILES = 64  # for maps, programs, sources; the agent holds about 40
_MAX_HEAD_BYTES = 32 << 10
_MAX_HEAD_LINES = 100  # thousands of short headers take 30 ms to parse
_REQUEST_SECONDS = 10.0  # for handshake and head; for reading the answer
_IDLE_SECONDS = 180.0  # between two requests; longer than scrapers' intervals
_GRACE_SECONDS = 0.1  # a connection has this time before one of its client replaces it
_SHUTDOWN_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
_ACCEPT_BATCH = 32
_BACKLOG = 1024

_log = structlog.get_logger(__name__)
T = TypeVar("T")

# A TLS connection of asyncio has a read buffer of 256 KiB. While one address sent heads
# of 99 x 64 KB over TLS for 12 s, RSS grew to 236 MiB; with a buffer of the size of a
# TLS record it stays at 86 MiB.
asyncio.sslproto.SSLProtocol.max_size = 16 << 10


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body. `headers` have lower-case names; `client` is the
    address, of IPv6 the /64; `certificate` is as getpeercert() returns it, None
    where the client has shown none.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    client: str = ""
    certificate: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response; its length and date are added when it is sent."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str]


def text_response(
    status: HTTPStatus, text: str, kind: str = "text/plain", **headers: str
) -> Response:
    """Response with this text; `headers` with _ for -."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    names["Content-Type"] = f"{kind}; charset=utf-8"
    return Response(status, text.encode(), names)


class BusyError(OSError):
    """Too many requests at once."""

    def __init__(self) -> None:
        super().__init__("too many requests at once; try again")


class Pool:
    """Threads for blocking work, `threads` at once, of one client at most `per_client`
    running or waiting. Who has fewest goes first, then who came first. BusyError for
    more, and for those that have waited `seconds`.
    """

    def __init__(self, threads: int, per_client: int, seconds: float = 2.0) -> None:
        self._executor = ThreadPoolExecutor(threads, "http")
        self._free = threads
        self._per_client = per_client
        self._seconds = seconds
        self._active: Counter[str] = Counter()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    async def run(self, client: str, work: Callable[[], T], rank: int = 0) -> T:
        """Result of `work`; a higher rank lets others go first. A thread that runs
        keeps its place, also where the caller is cancelled.
        """
        if self._active[client] >= self._per_client:
            raise BusyError
        rank += self._active[client]
        self._active[client] += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._acquire(rank)
        except BaseException as err:
            self._leave(client)
            if isinstance(err, TimeoutError):
                raise BusyError from err
            raise
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        future.add_done_callback(partial(self._done, client))
        return await asyncio.shield(future)

    async def _acquire(self, rank: int) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        item = (rank, next(self._numbers), turn)
        heapq.heappush(self._waiting, item)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given to us meanwhile
                self._release()
            else:
                self._waiting.remove(item)
                heapq.heapify(self._waiting)
            raise

    def _done(self, client: str, future: "asyncio.Future[Any]") -> None:
        future.cancelled() or future.exception()  # nobody may be left to see it
        self._leave(client)
        self._release()

    def _release(self) -> None:
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, client: str) -> None:
        self._active[client] -= 1
        if not self._active[client]:
            del self._active[client]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path. Without a pool it is called in the event loop and must not
    block. BadValueError is answered with 400, OSError with 503.
    """

    handler: Callable[[Request], Response]
    pool: Pool | None = None


class AuthGate(Protocol):
    """Who may ask; agent.server.auth.Authenticator is one. Used in the event loop."""

    def context(self) -> ssl.SSLContext | None:
        """TLS of the next connection; None: it is not encrypted."""

    def headers(self) -> Mapping[str, str]:
        """Headers of every response."""

    async def check(self, request: Request) -> Response | None:
        """The refusal; None: the request is allowed."""


@dataclass(eq=False)
class _Connection:
    client: str
    since: float  # loop time since when its client is waited for
    started: bool = False
    answering: bool = False
    task: "asyncio.Task[None] | None" = None


class Server:
    """Listens from the beginning, so that a port that is taken is an error at once:
    AgentError. The number of connections follows from the limit of descriptors.
    """

    def __init__(self, address: Address, auth: AuthGate | None = None) -> None:
        self._auth = auth
        self._routes: Mapping[str, Route] = {}
        self._connections: set[_Connection] = set()
        self._limit = _connection_limit()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_loop_error)
        try:
            self._listener = _listen(address)
        except BaseException:
            self._loop.close()
            raise
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if not self._loop.is_running():
            self._loop.close()

    @contextlib.contextmanager
    def serving(self, routes: Mapping[str, Route]) -> Iterator[None]:
        """Answer these paths meanwhile, in a thread."""
        self._routes = routes
        stop = asyncio.Event()
        thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._main(stop),), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(_SHUTDOWN_SECONDS / 2)

    async def _main(self, stop: asyncio.Event) -> None:
        self._loop.add_reader(self._listener, self._accept)
        await stop.wait()
        self._loop.remove_reader(self._listener)
        tasks = [one.task for one in self._connections if one.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                accepted, peer = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no free descriptor: rather wait than spin
                self._loop.remove_reader(self._listener)
                self._loop.call_later(
                    _PAUSE_SECONDS, self._loop.add_reader, self._listener, self._accept
                )
                return
            self._admit(accepted, _client(peer[0]))

    def _admit(self, accepted: socket.socket, client: str) -> None:
        if len(self._connections) >= self._limit and not self._make_room(client):
            accepted.close()
            return
        connection = _Connection(client, self._loop.time())
        self._connections.add(connection)
        connection.task = self._loop.create_task(self._serve(connection, accepted))
        # Cancelled before its first step it would leave the socket open.
        connection.task.add_done_callback(
            lambda _: None if connection.started else accepted.close()
        )

    def _make_room(self, client: str) -> bool:
        """Close a connection of the client that has most: one that waits for its client
        before one that is being answered, then the oldest. False where the new one is
        of a client that would have as many, and none of them had its time yet.
        """
        counts = Counter(one.client for one in self._connections)
        victim = max(
            self._connections,
            key=lambda one: (counts[one.client], not one.answering, -one.since),
        )
        is_young = self._loop.time() - victim.since < _GRACE_SECONDS
        if is_young and counts[client] + 1 >= counts[victim.client]:
            return False
        self._connections.discard(victim)
        assert victim.task
        victim.task.cancel()
        return True

    async def _serve(self, connection: _Connection, accepted: socket.socket) -> None:
        transport: asyncio.BaseTransport | None = None
        connection.started = True
        try:
            async with asyncio.timeout(_REQUEST_SECONDS) as deadline:
                context = self._auth.context() if self._auth else None
                reader = asyncio.StreamReader(_MAX_HEAD_BYTES)
                protocol = asyncio.StreamReaderProtocol(reader)
                accepted.setblocking(False)
                transport, _ = await self._loop.connect_accepted_socket(
                    lambda: protocol,
                    accepted,
                    ssl=context,
                    ssl_handshake_timeout=_REQUEST_SECONDS if context else None,
                    ssl_shutdown_timeout=_SHUTDOWN_SECONDS if context else None,
                )
                writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
                # drain() waits until all of it is sent
                writer.transport.set_write_buffer_limits(high=0)
                await self._exchange(connection, reader, writer, deadline)
                writer.close()
                deadline.reschedule(self._loop.time() + _SHUTDOWN_SECONDS)
                await writer.wait_closed()
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client has gone, was too slow, or had to make room
        except Exception:  # noqa: BLE001  of one connection, not of the server
            _log.exception("connection failed", client=connection.client)
        finally:
            self._connections.discard(connection)
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
            else:  # asyncio has it and closes it; a handshake ends by this
                with contextlib.suppress(OSError):
                    accepted.shutdown(socket.SHUT_RDWR)

    async def _exchange(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        deadline: asyncio.Timeout,
    ) -> None:
        """Requests and responses, until one of both sides wants no more."""
        http, buffer = h11.Connection(h11.SERVER), bytearray()
        while True:
            request = None
            try:
                head = await self._read_head(reader, buffer, deadline)
                http.receive_data(head)
                event = http.next_event()
                assert isinstance(event, h11.Request)
                request = _request(event, connection.client, writer)
            except h11.RemoteProtocolError as err:
                status = HTTPStatus(err.error_status_hint)
                response = text_response(status, f"{status.phrase}\n")
            else:
                deadline.reschedule(None)
                connection.answering = True
                response = await self._respond(request)
                connection.answering = False
            connection.since = self._loop.time()
            deadline.reschedule(self._loop.time() + _REQUEST_SECONDS)
            more = self._auth.headers() if self._auth else {}
            writer.write(_serialized(http, request, response, more))
            await writer.drain()
            if request is None or http.our_state is not h11.DONE:
                return
            if http.next_event() != h11.EndOfMessage(headers=[]):
                return  # it has a body, which nobody reads
            http.start_next_cycle()
            deadline.reschedule(self._loop.time() + _IDLE_SECONDS)
            await asyncio.sleep(0)  # others come first, though the next one is here

    async def _read_head(
        self, reader: asyncio.StreamReader, buffer: bytearray, deadline: asyncio.Timeout
    ) -> bytes:
        """The next head, with its empty line; what follows stays in the buffer.
        EOFError where there is none, h11.RemoteProtocolError where it is too long.
        """
        while (end := buffer.find(b"\r\n\r\n")) < 0 and len(buffer) <= _MAX_HEAD_BYTES:
            chunk = await reader.read(_MAX_HEAD_BYTES)
            if not chunk:
                raise EOFError
            if not buffer:
                deadline.reschedule(self._loop.time() + _REQUEST_SECONDS)
            buffer += chunk
        head = bytes(buffer[: end + 4])
        if not 0 <= end <= _MAX_HEAD_BYTES or head.count(b"\n") > _MAX_HEAD_LINES:
            raise h11.RemoteProtocolError("too long", error_status_hint=431)
        del buffer[: end + 4]
        return head

    async def _respond(self, request: Request) -> Response:
        try:
            refusal = await self._auth.check(request) if self._auth else None
            if refusal is not None:
                return refusal
            if request.method not in ("GET", "HEAD"):
                status = HTTPStatus.METHOD_NOT_ALLOWED
                text = "only GET and HEAD are allowed\n"
                return text_response(status, text, Allow="GET, HEAD")
            route = self._routes.get(request.path)
            if route is None:
                known = "/" if "/" in self._routes else "/metrics"
                return text_response(
                    HTTPStatus.NOT_FOUND, f"no such path; see {known}\n"
                )
            handle = partial(route.handler, request)
            if route.pool is None:
                return handle()
            return await route.pool.run(request.client, handle)
        except BadValueError as err:
            return text_response(HTTPStatus.BAD_REQUEST, f"{err.message}; {err.hint}\n")
        except OSError as err:  # there is no reading yet, or too many ask
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, f"{err}\n")
        except Exception:  # noqa: BLE001  of one request
            _log.exception("request failed", client=request.client, path=request.path)
            return text_response(
                HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; see the log\n"
            )


def _request(event: h11.Request, client: str, writer: asyncio.StreamWriter) -> Request:
    target = event.target.decode("ascii")
    path, _, query = target.partition("?")
    if not target.startswith("/"):  # absolute-form, as a proxy sends it
        path = "/" + path.partition("://")[2].partition("/")[2]
    return Request(
        event.method.decode("ascii"),
        unquote(path),
        query,
        {name.decode(): value.decode("latin-1") for name, value in event.headers},
        client,
        writer.get_extra_info("peercert") or None,
    )


def _serialized(
    http: h11.Connection,
    request: Request | None,
    response: Response,
    more: Mapping[str, str],
) -> bytes:
    headers = {
        "Date": formatdate(usegmt=True),
        "Server": "bigtcp-agent",
        **more,
        **response.headers,
        "Content-Length": str(len(response.body)),
    }
    if request is None:
        headers["Connection"] = "close"
    head = h11.Response(
        status_code=response.status,
        headers=list(headers.items()),
        reason=response.status.phrase,
    )
    body = b"" if request and request.method == "HEAD" else response.body
    parts = (http.send(head), http.send(h11.Data(body)), http.send(h11.EndOfMessage()))
    return b"".join(part or b"" for part in parts)


def _client(address: str) -> str:
    """The address; of IPv6 the /64, which is what one host is given."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))


def _connection_limit() -> int:
    """Of connections at once; AgentError where there are too few descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    if soft < _RESERVED_FILES + _MIN_CONNECTIONS:
        raise AgentError(
            f"the limit of {soft:,} file descriptors is too low",
            f"raise it to {_RESERVED_FILES + _MAX_CONNECTIONS} or more (ulimit -n)",
        )
    return min(_MAX_CONNECTIONS, soft - _RESERVED_FILES)


def _listen(address: Address) -> socket.socket:
    """Of all addresses IPv6, which takes IPv4 along; AgentError where it cannot be."""
    dual = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if dual else socket.AF_INET
        if address.host:
            family = socket.getaddrinfo(
                address.host,
                address.port,
                type=socket.SOCK_STREAM,
                flags=socket.AI_PASSIVE,
            )[0][0]
        listener = socket.create_server(
            (address.host, address.port),
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=dual and family == socket.AF_INET6,
        )
    except (OSError, UnicodeError) as err:
        hint = "give an address of this machine, or only :PORT"
        if isinstance(err, socket.gaierror):
            why = err.strerror
        elif isinstance(err, OSError) and err.errno:
            why = os.strerror(err.errno).lower()
            if err.errno == errno.EADDRINUSE:
                hint = "stop the process that listens there, or choose another --listen"
        else:
            why = "not a host name"
        raise AgentError(f"cannot listen on {address}: {why}", hint) from err
    listener.setblocking(False)
    return listener


def _log_loop_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A client that goes away in the middle is no event; the rest is."""
    error = context.get("exception")
    if not isinstance(error, OSError):
        _log.error("request failed", reason=context["message"], exc_info=error)
