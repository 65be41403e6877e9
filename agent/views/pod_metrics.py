# SPDX-License-Identifier: Apache-2.0
"""Metrics of single pods: only when they are asked for, capped, with few edges."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from agent.snapshot.pods import Families, PodsTraffic, PodTraffic, add_to

OTHERS = "(others)"
# Two MTUs, where BIG TCP begins, and two steps of it: 8 series a histogram, 32 a
# pod, 128 pods in 4,128 series. All 16 edges would be 76 a pod.
POD_EDGES = (1500, 9000, 65536, 131072, 196608)
MOST_PODS = 128


def pod_metrics(traffic: PodsTraffic) -> Iterator[Metric]:
    """Lengths by pod and direction; the pods without a name are one."""
    histogram = HistogramMetricFamily(
        "bigtcp_pod_skb_length_bytes",
        "L3 length of skbs of a pod: sent, at its own device; received, by address "
        "where they enter the node.",
        labels=["namespace", "pod", "direction", "ip_family"],
    )
    others = {("", OTHERS): (traffic.others.sent, traffic.others.received)}
    for name, (sent, received) in {**_by_name(traffic.named), **others}.items():
        for direction, families in (("tx", sent), ("rx", received)):
            for family, lengths in sorted(families.items()):
                edges = (e for e in POD_EDGES if e in lengths.histogram.edges)
                seen = lengths.histogram.coarser(tuple(edges))
                upto = [*(str(float(edge)) for edge in seen.edges), "+Inf"]
                histogram.add_metric(
                    [*name, direction, family],
                    list(zip(upto, seen.cumulative, strict=True)),
                    seen.bytes,
                )
    yield histogram
    yield GaugeMetricFamily(
        "bigtcp_pods_summed",
        "Pods of the node that stand in pod (others): above the cap.",
        value=traffic.summed,
    )


def _by_name(
    pods: Iterable[PodTraffic],
) -> dict[tuple[str, str], tuple[Families, Families]]:
    """What each sent and received. Two endpoints can be one pod's, as with several
    networks, or while its predecessor is not gone: a series must be there once.
    """
    found: dict[tuple[str, str], tuple[Families, Families]] = {}
    for pod in pods:
        sent, received = found.setdefault((pod.namespace, pod.pod), ({}, {}))
        add_to(sent, pod.sent)
        add_to(received, pod.received)
    return found
