# SPDX-License-Identifier: Apache-2.0
"""netperf by one value of the chart's; its result, the histograms and Cilium's state
side by side in a Prometheus that finds them through the Kubernetes API.
"""

import json
from pathlib import Path

import pytest

from agent.lab.netns import wait_until
from tests.cluster import release as releases
from tests.cluster import stages
from tests.cluster.cluster import Cluster
from tests.cluster.prometheus import prometheus
from tests.cluster.release import NAME

FAMILIES = ("ipv4", "ipv6")
# The client's node: what is big of all that it sends, by the seconds netperf measured.
SHARE = (
    "increase(bigtcp_big_skb_bytes_total{AT}[1m])"
    " / increase(bigtcp_skb_length_bytes_sum{AT}[1m])"
)


def test_netperf_beside_the_histograms(stocked: Cluster, tmp_path: Path) -> None:
    stages.go_to(stocked, "on")
    with (
        releases.installed(stocked, "helm4") as release,
        prometheus(stocked, tmp_path) as server,
    ):
        up = 'up{job="bigtcp-agent",service="bigtcp-agent"}'
        wait_until(lambda: server.query(up) == [1, 1], "both agents to be scraped", 20)
        values = "netperf.enabled=true,netperf.seconds=2,netperf.hold=30"
        release.apply("upgrade", "--reuse-values", f"--set={values}")
        speed = 'bigtcp_netperf_transactions_per_second{job="bigtcp-agent"}'
        wait_until(lambda: len(server.query(speed)) == 2, "netperf's results", 60)
        (client,) = release.pods("netperf-client")
        (at,) = release.pods("netperf-server")
        assert client != at
        for family in FAMILIES:
            (found,) = server.query(speed.replace("{", f'{{ip_family="{family}",'))
            assert found > 1000
            (share,) = server.query(
                f'bigtcp_netperf_big_bytes_ratio{{ip_family="{family}"}}'
            )
            assert share > 0.9
            where = f'hook="net_dev_start_xmit",interface="eth0",node="{client}"'
            of_node = SHARE.replace("AT", f'{where},ip_family="{family}"')
            (seen,) = server.query(of_node)
            assert seen == pytest.approx(share, abs=0.05)
        (state,) = server.query(
            f'sum(bigtcp_verdict{{state="active",node="{client}"}}) '
        )
        assert state == 2
        enabled = 'bigtcp_cilium_big_tcp_enabled{source="agent"}'
        assert server.query(enabled) == [1] * 4
        job = f"job/{NAME}-netperf-2"
        release.kubectl("wait", job, "--for=condition=Complete", "--timeout=90s")
        said = release.kubectl("logs", job)  # what is for people stands around it
        record, _ = json.JSONDecoder().raw_decode(said, said.index("{"))
        assert record["schema"] == "bigtcp.netperf/v1"
        assert set(record["families"]) == set(FAMILIES)
        release.apply("upgrade", "--reuse-values", "--set=netperf.enabled=false")
        assert release.pods("netperf-server") == {}
    stages.off(stocked)
