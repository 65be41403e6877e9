# SPDX-License-Identifier: Apache-2.0
"""The last results of netperf for Prometheus: `bigtcp_netperf_*`."""

from collections.abc import Callable, Iterable, Iterator
from statistics import median

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsCollector

from agent.record.netperf import Record, Run

_OVER_RUNS = {"min": min, "max": max}  # of the rest: the median


def metrics(record: Record | None) -> Iterator[Metric]:
    """The families, without samples while there is no record."""
    transactions = GaugeMetricFamily(
        "bigtcp_netperf_transactions_per_second",
        "Transactions of netperf TCP_RR a second, median of the last runs.",
        labels=["ip_family"],
    )
    latency = GaugeMetricFamily(
        "bigtcp_netperf_latency_seconds",
        "How long a transaction took: lowest min, highest max, medians of the rest.",
        labels=["statistic", "ip_family"],
    )
    ended = GaugeMetricFamily(
        "bigtcp_netperf_run_timestamp_seconds",
        "When the last run ended.",
        labels=["ip_family"],
    )
    big = GaugeMetricFamily(
        "bigtcp_netperf_big_bytes_ratio",
        "Share of the bytes that netperf's host sent in skbs above 64 KiB meanwhile.",
        labels=["ip_family"],
    )
    for family, series in record.families.items() if record else ():
        runs = series.runs
        transactions.add_metric(
            [family], median(run.transactions_per_second for run in runs)
        )
        for statistic in ("min", "mean", "p50", "p90", "p99", "max"):
            values = [getattr(run.latency_us, statistic) for run in runs]
            over_runs = _OVER_RUNS.get(statistic, median)
            latency.add_metric([statistic, family], over_runs(values) / 1e6)
        ended.add_metric([family], max(run.ended for run in runs))
        share = _big_share(runs)
        if share is not None:
            big.add_metric([family], share)
    yield from (transactions, latency, ended, big)


def _big_share(runs: Iterable[Run]) -> float | None:
    """Of all runs that were seen; None where none was."""
    sent = [run.sent for run in runs if run.sent]
    total = sum(counted.bytes for counted in sent)
    return sum(counted.big_bytes for counted in sent) / total if total else None


class _FromRecord(MetricsCollector):
    def __init__(self, source: Callable[[], Record | None]) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        return metrics(self._source())


def metrics_application(
    source: Callable[[], Record | None],
) -> Callable[..., Iterable[bytes]]:
    """A WSGI application of these metrics alone, of what `source` gives then."""
    registry = CollectorRegistry()
    registry.register(_FromRecord(source))
    application: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
    return application
