# SPDX-License-Identifier: Apache-2.0
"""What the agent answers: metrics for Prometheus, JSON for `check`, probes, a page."""

import json
import math
import platform
import re
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from urllib.parse import parse_qs

from agent import __version__
from agent.errors import BadValueError
from agent.server.http_server import (
    BusyError,
    Pool,
    Request,
    Response,
    Route,
    text_response,
)
from agent.snapshot.snapshot import Snapshot
from agent.views.exporter import PodsOf, metrics_application
from agent.views.picture import picture

_MAX_OBSERVE_SECONDS = 60  # of one request
_MAX_OBSERVERS = 16
_MAX_SNAPSHOTS = 4  # besides observers
_MAX_SCRAPES = 2  # the reading is one at a time anyway
_MAX_PER_CLIENT = 8
_READY_SECONDS = 1.0  # for which a good reading is good

WsgiApp = Callable[..., Iterable[bytes]]
Handler = Callable[[Request], Response]

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


def make_routes(
    source: Callable[[], Snapshot],
    observe: Callable[[float], Snapshot],
    pods: PodsOf | None = None,
) -> dict[str, Route]:
    """Routes of the agent: /metrics, /api/snapshot, /livez, /readyz and a page that
    links them. Metrics, snapshots and probes have threads of their own each.
    """
    api = Pool(_MAX_OBSERVERS + _MAX_SNAPSHOTS, _MAX_PER_CLIENT)
    observers = threading.BoundedSemaphore(_MAX_OBSERVERS)
    is_readable = _readiness_check(source)
    page = _PAGE.format(version=__version__, kernel=platform.release())

    def snapshot(request: Request) -> Response:
        seconds = _seconds(request.query)
        if seconds is None:
            result = source()
        elif observers.acquire(blocking=False):
            try:
                result = observe(seconds)
            finally:
                observers.release()
        else:
            raise BusyError
        text = json.dumps(picture(result))
        return text_response(HTTPStatus.OK, text, "application/json")

    def ready(_: Request) -> Response:
        is_readable()
        return text_response(HTTPStatus.OK, "ok\n")

    metrics = metrics_routes(metrics_application(source, pods))
    return metrics | {
        "/api/snapshot": Route(snapshot, api),
        "/readyz": Route(ready, Pool(1, _MAX_PER_CLIENT)),
        "/": Route(lambda _: text_response(HTTPStatus.OK, page, "text/html")),
    }


def metrics_routes(metrics_app: WsgiApp) -> dict[str, Route]:
    """Routes of metrics alone, of client_python's application: /metrics and /livez."""
    pool = Pool(_MAX_SCRAPES, _MAX_PER_CLIENT)
    return {
        "/metrics": Route(lambda request: _metrics(metrics_app, request), pool),
        "/livez": Route(lambda _: text_response(HTTPStatus.OK, "ok\n")),
    }


def _seconds(query: str) -> float | None:
    """Of ?seconds=N, to observe for so long; BadValueError where it is out of range."""
    values = parse_qs(query).get("seconds", [])
    if not values:
        return None
    try:
        seconds = float(values[-1])
    except ValueError:
        seconds = -1
    if not 0 < seconds <= _MAX_OBSERVE_SECONDS:
        raise BadValueError(
            f"seconds={values[-1]} is not an observation time in seconds",
            f"use a number above 0, up to {_MAX_OBSERVE_SECONDS}",
        )
    return seconds


def _readiness_check(source: Callable[[], Snapshot]) -> Callable[[], None]:
    """Read once; a success is good for a second, however many ask."""
    lock, last = threading.Lock(), -math.inf

    def read() -> None:
        nonlocal last
        with lock:
            if time.monotonic() - last >= _READY_SECONDS:
                source()
                last = time.monotonic()

    return read


def _metrics(app: WsgiApp, request: Request) -> Response:
    """Call the WSGI application; it cannot take a format's version that is none."""
    accept = request.headers.get("accept", "")
    version = r"[0-9]{1,9}(?:\.[0-9]{1,9})*"
    if re.search(rf"version=(?!{version}\s*(?:[;,]|$))", accept):
        accept = "*/*"
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "HTTP_ACCEPT": accept,
        "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
    }
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body = b"".join(app(environ, lambda *values: started.append(values)))
    ((status, headers),) = started
    return Response(HTTPStatus(int(status.split()[0])), body, dict(headers))
