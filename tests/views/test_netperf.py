# SPDX-License-Identifier: Apache-2.0
"""What a scrape and a terminal say of a record of netperf."""

from agent.record.netperf import Record
from agent.views.netperf import netperf_text
from agent.views.netperf_metrics import metrics
from tests.record.fakes import record


def samples(of: Record | None) -> dict[str, float]:
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for metric in metrics(of)
        for sample in metric.samples
    }


def test_metrics_are_medians_in_base_units() -> None:
    found = samples(record("on", [100.0, 300.0, 110.0], 50))
    assert found["bigtcp_netperf_transactions_per_second{ipv4}"] == 110
    assert found["bigtcp_netperf_latency_seconds{p50,ipv4}"] == 20e-6
    assert found["bigtcp_netperf_latency_seconds{max,ipv4}"] == 1800e-6
    assert found["bigtcp_netperf_run_timestamp_seconds{ipv4}"] == 1e9 + 300
    share = 5_000_000 / 5_050_000
    assert found["bigtcp_netperf_big_bytes_ratio{ipv4}"] == share


def test_there_is_no_share_where_nobody_looked() -> None:
    found = samples(record("on", [100.0], 50, seen=False))
    assert "bigtcp_netperf_transactions_per_second{ipv4}" in found
    assert "bigtcp_netperf_big_bytes_ratio{ipv4}" not in found


def test_before_the_first_result_there_are_no_samples() -> None:
    assert samples(None) == {}


def test_text_fits_a_terminal() -> None:
    text = netperf_text(record("on", [65_000.0, 66_000.0], 50))
    assert max(map(len, text.splitlines())) <= 80
    assert "65,500" in text
    assert "99.0 %" in text
    assert "The node's verdict: ipv4 active; C06" in text
    assert "KiB" not in netperf_text(record("on", [65_000.0], 50, seen=False))
