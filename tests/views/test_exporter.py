# SPDX-License-Identifier: Apache-2.0
"""What a scrape says of a snapshot, label by label.

The whole text is tests/views/metrics.txt: `python -m tests.views.exposition` writes
it anew.
"""

from dataclasses import replace
from typing import Any

from prometheus_client.core import Metric

from agent.kernel.contract import Contract, bpf_directory
from agent.settings import DEFAULT_MAX_INTERFACES, Interfaces
from agent.snapshot.cilium import ClusterState, Wanted
from agent.snapshot.collector import Collector
from agent.snapshot.model import DeviceId, Hook
from agent.snapshot.naming import Naming
from agent.snapshot.pods import PodName, Pods
from agent.snapshot.snapshot import Coverage, Snapshot
from agent.snapshot.sources import Surroundings
from agent.views.exporter import metrics, metrics_application
from agent.views.pod_metrics import pod_metrics
from tests.snapshot.fakes import OURS, FakeProbes, lengths, link
from tests.views import exposition


def snapshot(interfaces: str, most: int) -> Snapshot:
    probes = FakeProbes()
    links = [link(1, "lo", loopback=True), link(2, "eth0"), link(9, "lxc1")]
    links += [link(10, "lxc2")]
    probes.put(OURS, 2, lengths(5, 3))
    probes.put(OURS, 2, lengths(0, 4), hook=Hook.NET_DEV_QUEUE)
    probes.put(OURS, 9, lengths(2), name="lxc1")
    probes.put(OURS, 10, lengths(1), name="lxc2")
    probes.put(20, 3, lengths(7), peer=DeviceId(OURS, 9))
    probes.put(21, 3, lengths(8), peer=DeviceId(OURS, 10))
    named = Interfaces.parse(interfaces, most)
    around = Surroundings(naming=Naming(named.wants, named.most))
    return Collector(probes, lambda: links, OURS, around).snapshot()


def samples(interfaces: str, most: int = 8, **other: Any) -> dict[str, float]:
    found: list[Metric] = list(metrics(replace(snapshot(interfaces, most), **other)))
    return {
        f"{sample.name}{{{','.join(v for v in sample.labels.values())}}}": sample.value
        for metric in found
        for sample in metric.samples
    }


def test_pods_are_summed_and_named_devices_stand_alone() -> None:
    found = samples("!lxc*")
    count = "bigtcp_skb_length_bytes_count{net_dev_start_xmit"
    assert found[count + ",node,eth0,ipv4}"] == 8
    assert found[count + ",node,(others),ipv4}"] == 3
    assert found[count + ",pods,,ipv4}"] == 15
    assert found["bigtcp_interfaces_summed{}"] == 2


def test_a_configmap_asks_nothing_of_a_node_without_cilium() -> None:
    """Alerts are of nodes where this is 1."""
    wanted = Wanted({"enable-ipv4-big-tcp": "true"}, True, {}, None, 0)
    cluster = ClusterState(wanted, None, {}, {})
    asked = "bigtcp_cilium_big_tcp_enabled{ipv4,configmap}"
    assert samples("*", cluster=cluster)[asked] == 1
    assert asked not in samples("*", cluster=cluster, cilium_left=False)


def test_coverage_is_a_ratio_and_what_it_is_made_of() -> None:
    covered = {("eth0", "tx"): Coverage(50, 200), ("lxc1", "tx"): Coverage(1, 1)}
    found = samples("eth0", coverage=covered)
    assert found["bigtcp_coverage_ratio{eth0,tx}"] == 0.25
    assert found["bigtcp_counted_bytes_total{eth0,tx}"] == 50
    assert found["bigtcp_interface_bytes_total{eth0,tx}"] == 200
    assert not any(name.endswith("{lxc1,tx}") for name in found)


def test_histogram_and_big_bytes() -> None:
    found = samples("eth0")
    at = "{net_dev_start_xmit,node,eth0,ipv4"
    assert found[f"bigtcp_skb_length_bytes_bucket{at},65536.0}}"] == 5
    assert found[f"bigtcp_skb_length_bytes_bucket{at},+Inf}}"] == 8
    assert found[f"bigtcp_skb_length_bytes_sum{at}}}"] == 305_000
    assert found[f"bigtcp_big_skb_bytes_total{at}}}"] == 300_000
    assert found[f"bigtcp_skb_segments_total{at}}}"] == 212
    assert found[f"bigtcp_skb_length_max_bytes{at}}}"] == 100_000
    assert found["bigtcp_queued_big_skbs_total{node,eth0,ipv4}"] == 4
    assert not any("net_dev_queue" in name and "length" in name for name in found)


def test_the_cap_sums_what_it_drops() -> None:
    found = samples("", most=1)
    count = "bigtcp_skb_length_bytes_count{net_dev_start_xmit,node"
    assert found[count + ",(others),ipv4}"] == 3
    assert found["bigtcp_interfaces_summed{}"] == 2
    assert found["bigtcp_device_gso_max_size_bytes{eth0,ipv6}"] == 65536
    assert not any("lxc" in name for name in found)


def test_since_when_a_source_is_mute() -> None:
    probes, now = FakeProbes(), [1e9]
    collector = Collector(probes, lambda: [link(2, "eth0")], OURS, wall=lambda: now[0])
    collector.snapshot()
    now[0] += 3600
    probes.failing = True
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics(collector.snapshot())
        for sample in metric.samples
    }
    answered = "bigtcp_source_answered_timestamp_seconds"
    assert found[answered, "probes"] == 1e9
    assert found[answered, "links"] == 1e9 + 3600
    assert (answered, "cilium") not in found


def test_the_whole_text() -> None:
    assert exposition.draw() == exposition.FILE.read_text()


def test_series_of_the_busiest_node() -> None:
    """By default, whatever it has and however many pods: at most 1,500, with those
    of the process itself.
    """
    snapshot = exposition.busy_node(
        2 * DEFAULT_MAX_INTERFACES,
        DEFAULT_MAX_INTERFACES,
        Contract.read(bpf_directory()).edges,
    )
    app = metrics_application(lambda: snapshot)
    text = b"".join(app({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None))
    series = [line for line in text.splitlines() if not line.startswith(b"#")]
    assert b'interface="eth7"' in text
    assert b'interface="eth8"' not in text
    assert 1000 < len(series) <= 1500


def test_two_endpoints_of_one_pod_are_one_series() -> None:
    snapshot = exposition.busy_node(cards=1, most=1)
    names = exposition.NAMES | {exposition.DB: PodName("default", "web")}
    traffic = Pods(most=8).traffic(snapshot, names)
    (histogram, _) = pod_metrics(traffic)
    found = {
        (sample.labels["pod"], sample.labels["direction"]): sample.value
        for sample in histogram.samples
        if sample.name.endswith("_sum") and sample.labels["ip_family"] == "ipv4"
    }
    assert len(histogram.samples) == len({repr(s) for s in histogram.samples})
    assert found["web", "tx"] == 1000 * (101 + 102) + 100_000 * (200 + 200)
    assert found["web", "rx"] == 1000 * (101 + 102) + 100_000 * (400 + 400)
    assert found["idle", "tx"] == 1000 * 103 + 100_000 * 200
