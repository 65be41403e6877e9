# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes a real agent, and PromQL tells what the lab knows."""

import contextlib
import os
from pathlib import Path

import pytest

from agent.kernel.probes import Probes
from agent.lab import netperf
from agent.lab.netns import pair, wait_until
from agent.lab.programs import require
from agent.snapshot.evidence import FAMILIES
from agent.snapshot.model import Family, Hook
from tests.process import agent, fetch
from tests.prometheus import prometheus, require_valid_metrics
from tests.stand import seen


@pytest.mark.parametrize("family", FAMILIES)
def test_promql_tells_the_share_that_the_lab_measured(
    probes: Probes, tmp_path: Path, family: Family
) -> None:
    require("netperf", "netserver")
    with contextlib.ExitStack() as stack:
        stand = stack.enter_context(pair())
        stand.set_sizes(196608)
        cpu = max(os.sched_getaffinity(0))
        netperf.serve(stand.server, cpu)
        _, address = stack.enter_context(agent(within=stand.client))
        scrape = {
            "job_name": "bigtcp",
            "static_configs": [{"targets": [address.removeprefix("http://")]}],
        }
        server = stack.enter_context(
            prometheus(stand.client, {"scrape_configs": [scrape]}, tmp_path)
        )
        before = seen(probes, stand.client, Hook.NET_DEV_START_XMIT, family)
        netperf.tcp_rr(stand.client, stand.addresses[family], cpu, 1)
        sent = seen(probes, stand.client, Hook.NET_DEV_START_XMIT, family).since(before)
        at = (
            '{hook="net_dev_start_xmit",scope="node",interface="eth0",'
            f'ip_family="{family}"}}'
        )
        big = f"bigtcp_big_skb_bytes_total{at}"
        count = f"bigtcp_skb_length_bytes_count{at}"

        def whole() -> list[float]:
            """When it was scraped: later, a scrape may have failed."""
            return [
                at
                for at in server.query(f"timestamp({count})")
                if server.query(count, at) >= [float(sent.histogram.count)]
            ]

        (at_scrape,) = wait_until(whole, "Prometheus to have scraped it all")
        share = f"{big} / bigtcp_skb_length_bytes_sum{at}"
        assert sent.histogram.big_share is not None
        assert sent.histogram.big_share > 0.9
        assert server.query(share, at_scrape) == [
            pytest.approx(sent.histogram.big_share, rel=1e-3)
        ]
        small = f'bigtcp_skb_length_bytes_bucket{at[:-1]},le="65536.0"}}'
        packets = f"1 - {small} / ignoring(le) {count}"
        assert server.query(packets, at_scrape) == [
            pytest.approx(sent.histogram.share_above(65536), rel=1e-2)
        ]
        coverage = 'bigtcp_coverage_ratio{direction="tx",interface="eth0"}'
        assert server.query(coverage, at_scrape) == [pytest.approx(1, rel=0.01)]
        text = stand.client.call(lambda: fetch(f"{address}/metrics"))[1]
    require_valid_metrics(text)
