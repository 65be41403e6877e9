# SPDX-License-Identifier: Apache-2.0
"""Metrics of a Snapshot, and the small web server that shows them.

A packet passes several hooks and devices: no query may sum over `hook` or
`scope`. Classic histograms: client_python makes no native ones.
"""

import errno
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as MetricsCollector

from agent import __version__
from agent.errors import AgentError
from agent.settings import Address, Interfaces
from agent.snapshot.model import (
    DeviceRows,
    Family,
    Hook,
    Lengths,
    Link,
    Scope,
    Snapshot,
    add_rows,
)

OTHERS = "(others)"  # the interface label of the node's devices without a name
_LABELS = ["hook", "scope", "interface", "ip_family"]
_REQUEST_SECONDS = 10

_log = structlog.get_logger(__name__)

Sums = dict[tuple[Hook, Family], Lengths]


def _shown(snapshot: Snapshot, interfaces: Interfaces) -> tuple[set[str], int]:
    """Names of the node's devices to show, and how many more are summed."""
    names = [
        link.name
        for link in sorted(snapshot.links, key=lambda link: link.ifindex)
        if not link.loopback
    ]
    shown = [name for name in names if interfaces.wants(name)][: interfaces.most]
    return set(shown), len(names) - len(shown)


def series(snapshot: Snapshot, shown: set[str]) -> dict[tuple[Scope, str], Sums]:
    """Lengths by scope and interface label.

    Node devices that are `shown` stand alone, all others in `(others)`, with
    what devices that are gone had counted; pods and other are one sum each.
    """
    found: dict[tuple[Scope, str], Sums] = {}
    for device in snapshot.devices:
        sums = found.setdefault((device.scope, _label(device, shown)), {})
        add_rows(sums, device.rows)
    for (scope, hook, family), lengths in snapshot.retired.items():
        sums = found.setdefault((scope, OTHERS if scope is Scope.NODE else ""), {})
        before = sums.get((hook, family))
        sums[hook, family] = before.add(lengths) if before else lengths
    return found


def _label(device: DeviceRows, shown: set[str]) -> str:
    if device.scope is not Scope.NODE:
        return ""
    return device.name if device.link and device.name in shown else OTHERS


def _lengths_metrics(found: dict[tuple[Scope, str], Sums]) -> Iterator[Metric]:
    histogram = HistogramMetricFamily(
        "bigtcp_skb_length_bytes",
        "L3 length of skbs. Do not sum over hook or scope.",
        labels=_LABELS,
    )
    big = CounterMetricFamily(
        "bigtcp_big_skb_bytes",
        "Bytes in skbs above 64 KiB; over bigtcp_skb_length_bytes_sum: their share.",
        labels=_LABELS,
    )
    longest = GaugeMetricFamily(
        "bigtcp_skb_length_max_bytes",
        "Longest skb since the agent started, or the device came.",
        labels=_LABELS,
    )
    segments = CounterMetricFamily(
        "bigtcp_skb_segments",
        "Wire packets that the skbs stand for.",
        labels=_LABELS,
    )
    queued = CounterMetricFamily(
        "bigtcp_queued_big_skbs",
        "Skbs above 64 KiB before software GSO. Growing where no big one is sent: "
        "segmented in software at that device.",
        labels=_LABELS[1:],
    )
    for (scope, interface), sums in sorted(found.items()):
        for (hook, family), lengths in sorted(sums.items()):
            seen = lengths.histogram
            if hook is Hook.NET_DEV_QUEUE:
                queued.add_metric([scope, interface, family], seen.count)
                continue
            labels = [hook, scope, interface, family]
            edges = [*(str(float(edge)) for edge in seen.edges), "+Inf"]
            buckets = list(zip(edges, seen.cumulative, strict=True))
            histogram.add_metric(labels, buckets, seen.bytes)
            big.add_metric(labels, seen.big_bytes)
            longest.add_metric(labels, lengths.longest)
            segments.add_metric(labels, lengths.segments)
    yield from (histogram, big, longest, segments, queued)


def _device_metrics(links: Iterable[Link]) -> Iterator[Metric]:
    by_family = ["interface", "ip_family"]
    gso = GaugeMetricFamily(
        "bigtcp_device_gso_max_size_bytes",
        "Longest skb that the device takes without software GSO.",
        labels=by_family,
    )
    gro = GaugeMetricFamily(
        "bigtcp_device_gro_max_size_bytes",
        "Longest skb that GRO builds on the device.",
        labels=by_family,
    )
    tso = GaugeMetricFamily(
        "bigtcp_device_tso_max_size_bytes",
        "Ceiling that the driver sets for gso_max_size.",
        labels=["interface"],
    )
    for link in links:
        for family, gso_max, gro_max in (
            (Family.IPV6, link.sizes.gso_max, link.sizes.gro_max),
            (Family.IPV4, link.sizes.gso_ipv4_max, link.sizes.gro_ipv4_max),
        ):
            if gso_max is not None:
                gso.add_metric([link.name, family], gso_max)
            if gro_max is not None:
                gro.add_metric([link.name, family], gro_max)
        if link.sizes.tso_max is not None:
            tso.add_metric([link.name], link.sizes.tso_max)
    yield from (gso, gro, tso)


def _own_metrics(snapshot: Snapshot, kernel: str) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "bigtcp_build_info",
        "What runs here; always 1.",
        labels=["version", "kernel", "python_version"],
    )
    python = ".".join(str(part) for part in sys.version_info[:3])
    build.add_metric([__version__, kernel, python], 1)
    attached = GaugeMetricFamily(
        "bigtcp_probe_attached", "1 if the hook is attached.", labels=["hook"]
    )
    for hook, is_attached in snapshot.attached.items():
        attached.add_metric([hook], is_attached)
    up = GaugeMetricFamily(
        "bigtcp_source_up", "1 if the source answered this time.", labels=["source"]
    )
    errors = CounterMetricFamily(
        "bigtcp_source_errors", "Reads of the source that failed.", labels=["source"]
    )
    for name, source in snapshot.sources.items():
        up.add_metric([name], source.up)
        errors.add_metric([name], source.errors)
    unrecorded = CounterMetricFamily(
        "bigtcp_skbs_unrecorded",
        "Skbs that are in no histogram, by reason.",
        labels=["reason"],
    )
    for reason, count in snapshot.unrecorded.items():
        unrecorded.add_metric([reason], count)
    yield from (build, attached, up, errors, unrecorded)


def metrics(
    snapshot: Snapshot, interfaces: Interfaces, kernel: str
) -> Iterator[Metric]:
    """Every metric of a snapshot; `kernel` is the running release."""
    shown, summed = _shown(snapshot, interfaces)
    yield from _lengths_metrics(series(snapshot, shown))
    yield from _device_metrics(link for link in snapshot.links if link.name in shown)
    yield GaugeMetricFamily(
        "bigtcp_interfaces_summed",
        "Devices of the node that stand in interface (others): left out by "
        "--interfaces, or above --max-interfaces.",
        value=summed,
    )
    coverage = GaugeMetricFamily(
        "bigtcp_coverage_ratio",
        "Bytes counted here over bytes counted by the interface, since the start.",
        labels=["interface", "direction"],
    )
    for (name, direction), covered in sorted(snapshot.coverage.items()):
        if name in shown:
            coverage.add_metric([name, direction], covered.ratio)
    yield coverage
    yield from _own_metrics(snapshot, kernel)


class FromSource(MetricsCollector):
    """Asks for a snapshot on each scrape."""

    def __init__(
        self, source: Callable[[], Snapshot], interfaces: Interfaces, kernel: str
    ) -> None:
        self._source = source
        self._interfaces = interfaces
        self._kernel = kernel

    def describe(self) -> Iterable[Metric]:
        """Nothing: or registering would take a snapshot."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Metrics of a snapshot taken now."""
        return metrics(self._source(), self._interfaces, self._kernel)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>bigtcp-agent</title>
<meta name="viewport" content="width=device-width">
<style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;
max-width:40rem;margin:3rem auto;padding:0 1rem}}code{{font-size:.95em}}</style>
</head><body><h1>bigtcp-agent {version}</h1>
<p>Is BIG TCP really on? This agent counts the length of every packet (skb) that
this node sends and receives, in the kernel (Linux {kernel}).</p>
<ul><li><a href="metrics"><code>/metrics</code></a>: histograms and device sizes,
for Prometheus</li>
<li><a href="readyz"><code>/readyz</code></a>: 200 once the maps can be read</li>
<li><a href="livez"><code>/livez</code></a>: 200 while this process answers</li></ul>
<p>Share of the bytes sent in packets above 64 KiB, in PromQL:</p>
<pre><code>sum(rate(bigtcp_big_skb_bytes_total{{hook="net_dev_start_xmit",scope="node"}}[5m]))
/ sum(rate(bigtcp_skb_length_bytes_sum{{hook="net_dev_start_xmit",scope="node"}}[5m]))
</code></pre></body></html>
"""

WsgiApp = Callable[..., Iterable[bytes]]


def make_app(  # noqa: C901  a router is a list of cases
    source: Callable[[], Snapshot], interfaces: Interfaces, kernel: str
) -> WsgiApp:
    """The web application: /metrics, /livez, /readyz and a page that links them."""
    registry = CollectorRegistry()
    registry.register(FromSource(source, interfaces, kernel))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    metrics_app: WsgiApp = make_wsgi_app(registry)
    page = _PAGE.format(version=__version__, kernel=kernel)

    def app(environ: dict[str, str], start: Callable[..., object]) -> Iterable[bytes]:
        def answer(status: HTTPStatus, text: str, kind: str) -> list[bytes]:
            body = text.encode()
            headers = [
                ("Content-Type", f"{kind}; charset=utf-8"),
                ("Content-Length", str(len(body))),
            ]
            start(f"{status.value} {status.phrase}", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

        def plain(status: HTTPStatus, text: str) -> list[bytes]:
            return answer(status, text + "\n", "text/plain")

        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET")
        match environ["PATH_INFO"]:
            case "/metrics":
                try:
                    return metrics_app(environ, start)
                except OSError as err:
                    return plain(HTTPStatus.SERVICE_UNAVAILABLE, str(err))
            case "/livez":
                return plain(HTTPStatus.OK, "ok")
            case "/readyz":
                try:
                    source()
                except OSError as err:
                    return plain(HTTPStatus.SERVICE_UNAVAILABLE, str(err))
                return plain(HTTPStatus.OK, "ok")
            case "/":
                return answer(HTTPStatus.OK, page, "text/html")
        return plain(HTTPStatus.NOT_FOUND, "not here; see /")

    return app


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS  # or a client that says nothing keeps a thread

    def log_message(self, format: str, *args: object) -> None:
        pass  # never a line per scrape


class Server(ThreadingMixIn, WSGIServer):
    """Serves an application until it is shut down, a thread per request."""

    daemon_threads = True
    # Another agent on this port must be an error, not a second listener.
    allow_reuse_port = False

    def __init__(self, address: Address, app: WsgiApp) -> None:
        self.address_family = socket.AF_INET6
        if "." in address.host or (
            not address.host and not socket.has_dualstack_ipv6()
        ):
            self.address_family = socket.AF_INET
        try:
            super().__init__((address.host, address.port), _Handler)
        except socket.gaierror as err:
            raise AgentError(
                f"cannot listen on {address}: {err.strerror}",
                "give an address of this machine, or only :PORT",
            ) from err
        except OSError as err:
            hint = "give an address of this machine, or only :PORT"
            if err.errno == errno.EADDRINUSE:
                hint = "another agent runs here, or choose another port with --listen"
            raise AgentError(
                f"cannot listen on {address}: {(err.strerror or '').lower()}", hint
            ) from err
        self.set_app(app)

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
        if not isinstance(error, ConnectionError | TimeoutError):
            _log.error("request failed", client=str(client_address), exc_info=True)
