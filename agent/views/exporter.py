# SPDX-License-Identifier: Apache-2.0
"""Metrics of a Snapshot, in the formats of Prometheus.

A packet passes several hooks and devices: no query may sum over `hook` or
`scope`. Classic histograms: client_python makes no native ones.
"""

import platform
from collections.abc import Callable, Iterable, Iterator

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
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector as MetricsCollector

from agent import __version__
from agent.snapshot.evidence import FAMILIES, LEGACY, Evidence
from agent.snapshot.findings import FINDING_IDS
from agent.snapshot.model import Family, Hook, Lengths, Link, Scope
from agent.snapshot.pods import NO_PODS, PodsTraffic
from agent.snapshot.snapshot import Snapshot
from agent.snapshot.verdict import State, judge
from agent.views.pod_metrics import pod_metrics

_LABELS = ["hook", "scope", "interface", "ip_family"]


PodsOf = Callable[[Snapshot], PodsTraffic]
Sums = dict[tuple[Hook, Family], Lengths]


def series(snapshot: Snapshot) -> dict[tuple[Scope, str], Sums]:
    """Lengths by scope and interface label, what is gone included.

    What is no IP is one sum of its scope: a histogram for each device's ARP would
    be a third of all series.
    """
    found: dict[tuple[Scope, str], Sums] = {}

    def add(at: tuple[Scope, str, Hook, Family], lengths: Lengths) -> None:
        scope, label, hook, family = at
        place = scope, "" if family is Family.OTHER else label
        sums = found.setdefault(place, {})
        before = sums.get((hook, family))
        sums[hook, family] = before.add(lengths) if before else lengths

    for device in snapshot.devices:
        for (hook, family), row in device.rows.items():
            add((device.scope, device.label, hook, family), row.lengths)
    for at, lengths in snapshot.retired.items():
        add(at, lengths)
    return found


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


def _own_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "bigtcp_build_info",
        "What runs here; always 1.",
        labels=["version", "kernel", "python_version"],
    )
    build.add_metric([__version__, snapshot.kernel, platform.python_version()], 1)
    attached = GaugeMetricFamily(
        "bigtcp_probe_attached", "1 if the hook is attached.", labels=["hook"]
    )
    for hook, is_attached in snapshot.attached.items():
        attached.add_metric([hook], is_attached)
    up = GaugeMetricFamily(
        "bigtcp_source_up", "1 if the source answered its last read.", labels=["source"]
    )
    errors = CounterMetricFamily(
        "bigtcp_source_errors", "Reads of the source that failed.", labels=["source"]
    )
    answered = GaugeMetricFamily(
        "bigtcp_source_answered_timestamp_seconds",
        "When the source last answered; what it said then is kept.",
        labels=["source"],
    )
    for name, source in snapshot.sources.items():
        up.add_metric([name], source.up)
        errors.add_metric([name], source.errors)
        if source.answered is not None:
            answered.add_metric([name], source.answered)
    unrecorded = CounterMetricFamily(
        "bigtcp_skbs_unrecorded",
        "Skbs that are in no histogram, by reason; those of no_address are, but in no "
        "pod's.",
        labels=["reason"],
    )
    for reason, count in snapshot.unrecorded.items():
        unrecorded.add_metric([reason], count)
    fill = GaugeMetricFamily(
        "bigtcp_map_fill_ratio",
        "Entries of the BPF map over those that it has room for: lengths has a row for "
        "each device, hook and IP family.",
        labels=["map"],
    )
    for name, entries in snapshot.maps.items():
        fill.add_metric([name], entries.used / entries.limit)
    yield from (build, attached, up, answered, errors, unrecorded, fill)


def _verdict_metrics(evidence: Evidence) -> Iterator[Metric]:
    verdict = judge(evidence)
    state = GaugeMetricFamily(
        "bigtcp_verdict",
        "1 for the state that holds, by what happened lately.",
        labels=["ip_family", "state"],
    )
    pods = GaugeMetricFamily(
        "bigtcp_pods",
        "Pods of this node with a device of their own: legacy ones are at 64 KiB, "
        "unknown ones have a device that is not here.",
        labels=["state", "ip_family"],
    )
    for family in FAMILIES:
        for each in State:
            state.add_metric([family, each], verdict.families[family].state is each)
        big = sum(pod.limit(family) > LEGACY for pod in evidence.pods)
        pods.add_metric(["big", family], big)
        pods.add_metric(["legacy", family], len(evidence.pods) - big)
        pods.add_metric(["unknown", family], len(evidence.unknown_pods))
    finding = GaugeMetricFamily(
        "bigtcp_finding",
        "1 while it holds; `bigtcp-agent check` says more.",
        labels=["id"],
    )
    found = {each.id for each in verdict.findings}
    for number in FINDING_IDS:
        finding.add_metric([number], number in found)
    yield from (state, pods, finding)


def _cilium_metrics(evidence: Evidence) -> Iterator[Metric]:
    enabled = GaugeMetricFamily(
        "bigtcp_cilium_big_tcp_enabled",
        "What was asked for: by the ConfigMap, and by the agent as it runs.",
        labels=["ip_family", "source"],
    )
    size = GaugeMetricFamily(
        "bigtcp_cilium_max_size_bytes",
        "What Cilium's agent applied.",
        labels=["ip_family", "offload"],
    )
    info = InfoMetricFamily(
        "bigtcp_cilium_config", "How Cilium's agent runs on this node."
    )
    changed = GaugeMetricFamily(
        "bigtcp_cilium_config_changed_timestamp_seconds",
        "When Cilium's configuration was last seen to change.",
    )
    applied = evidence.applied
    for family in FAMILIES:
        configured, running = evidence.configured(family), evidence.running(family)
        if configured is not None:
            enabled.add_metric([family, "configmap"], configured)
        if running is not None:
            enabled.add_metric([family, "agent"], running)
        if applied is not None:
            big_tcp = applied.big_tcp[family]
            size.add_metric([family, "gso"], big_tcp.max_gso)
            size.add_metric([family, "gro"], big_tcp.max_gro)
    if applied is not None:
        labels = {
            "version": applied.version,
            "routing_mode": applied.routing_mode,
            "tunnel_protocol": applied.tunnel_protocol,
            "host_routing": applied.host_routing,
            "masquerading": applied.masquerading,
            "kube_proxy_replacement": applied.kube_proxy_replacement,
            "encryption": applied.encryption,
            "datapath_mode": applied.datapath_mode,
        }
        info.add_metric([], labels)
    if evidence.wanted and evidence.wanted.changed is not None:
        changed.add_metric([], evidence.wanted.changed)
    yield from (enabled, size, info, changed)


def metrics(snapshot: Snapshot, pods: PodsTraffic | None = None) -> Iterator[Metric]:
    """Every metric of a snapshot."""
    links = [link for link in snapshot.links if not link.loopback]
    shown = [link for link in links if link.name in snapshot.shown]
    yield from _lengths_metrics(series(snapshot))
    yield from _device_metrics(shown)
    yield GaugeMetricFamily(
        "bigtcp_interfaces_summed",
        "Devices of the node that stand in interface (others): left out by "
        "--interfaces, or above --max-interfaces.",
        value=len(links) - len(shown),
    )
    coverage = GaugeMetricFamily(
        "bigtcp_coverage_ratio",
        "Bytes counted here over bytes counted by the interface, since the start.",
        labels=["interface", "direction"],
    )
    counted = CounterMetricFamily(
        "bigtcp_counted_bytes",
        "Bytes counted here, with a link header for each skb.",
        labels=["interface", "direction"],
    )
    there = CounterMetricFamily(
        "bigtcp_interface_bytes",
        "Bytes counted by the interface, since the start.",
        labels=["interface", "direction"],
    )
    for (name, direction), covered in sorted(snapshot.coverage.items()):
        if name in snapshot.shown:
            coverage.add_metric([name, direction], covered.ratio)
            counted.add_metric([name, direction], covered.counted)
            there.add_metric([name, direction], covered.kernel)
    yield from (coverage, counted, there)
    if pods is not None:
        yield from pod_metrics(pods)
    evidence = Evidence(snapshot)
    yield from _verdict_metrics(evidence)
    yield from _cilium_metrics(evidence)
    yield from _own_metrics(snapshot)


_NOTHING = Snapshot(
    taken=0,
    started=0,
    uptime=0,
    edges=(),
    devices=(),
    links=(),
    retired={},
    unrecorded={},
    attached={},
    sources={},
)


class FromSource(MetricsCollector):
    """Asks for a snapshot on each scrape."""

    def __init__(
        self, source: Callable[[], Snapshot], pods: PodsOf | None = None
    ) -> None:
        self._source = source
        self._pods = pods

    def describe(self) -> Iterable[Metric]:
        """The families without samples: ?name[]= selects by them."""
        return metrics(_NOTHING, NO_PODS if self._pods else None)

    def collect(self) -> Iterable[Metric]:
        """Metrics of a snapshot taken now."""
        snapshot = self._source()
        return metrics(snapshot, self._pods(snapshot) if self._pods else None)


def metrics_application(
    source: Callable[[], Snapshot], pods: PodsOf | None = None
) -> Callable[..., Iterable[bytes]]:
    """A WSGI application of the metrics alone: OpenMetrics and gzip if asked for.

    `pods` tells what single pods did in a snapshot, where that is wanted.
    """
    registry = CollectorRegistry()
    registry.register(FromSource(source, pods))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    application: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
    return application
