# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes a real agent, and PromQL tells what the lab knows."""

import contextlib
import json
import os
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.probes import Probes
from agent.lab import netperf
from agent.lab.netns import Namespace, pair, wait_until
from agent.snapshot.model import Family, Hook
from tests.process import agent, fetch
from tests.stand import seen

TOOLS = Path(os.environ.get("TOOLS", Path.home() / ".cache/bigtcp-agent/debian"))


def tool(name: str) -> str:
    """A program of Debian's Prometheus packages, unpacked by `make test`."""
    found = sorted(TOOLS.glob(f"*/usr/bin/{name}"))
    assert found, f"no {name} under {TOOLS}: run `make test`"
    return str(found[0])


class Prometheus:
    """Instant queries, asked from inside the namespace where it runs."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def query(self, promql: str) -> list[float]:
        encoded = urllib.parse.quote(promql)
        url = f"http://127.0.0.1:9090/api/v1/query?query={encoded}"
        status, body = self._namespace.call(lambda: fetch(url))
        if status != 200:
            return []
        return [
            float(found["value"][1]) for found in json.loads(body)["data"]["result"]
        ]


@contextlib.contextmanager
def prometheus(
    namespace: Namespace, address: str, folder: Path
) -> Iterator[Prometheus]:
    target = address.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"},
        "scrape_configs": [
            {"job_name": "bigtcp", "static_configs": [{"targets": [target]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    namespace.start(
        tool("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:9090",
    )
    yield Prometheus(namespace)


def test_promql_tells_the_share_that_the_lab_measured(
    probes: Probes, tmp_path: Path
) -> None:
    netperf.require()
    with contextlib.ExitStack() as stack:
        stand = stack.enter_context(pair())
        stand.set_sizes(196608)
        cpu = max(os.sched_getaffinity(0))
        netperf.serve(stand.server, cpu)
        _, address = stack.enter_context(agent(within=stand.client))
        server = stack.enter_context(prometheus(stand.client, address, tmp_path))
        before = seen(probes, stand.client, Hook.NET_DEV_START_XMIT, Family.IPV6)
        netperf.tcp_rr(stand.client, stand.addresses["ipv6"], cpu, 1)
        sent = seen(probes, stand.client, Hook.NET_DEV_START_XMIT, Family.IPV6).since(
            before
        )
        at = (
            '{hook="net_dev_start_xmit",scope="node",interface="eth0",ip_family="ipv6"}'
        )
        big = f"bigtcp_big_skb_bytes_total{at}"
        count = f"bigtcp_skb_length_bytes_count{at}"
        wait_until(
            lambda: server.query(count) >= [float(sent.histogram.count)],
            "Prometheus to have scraped it all",
            30,
        )
        share = f"{big} / bigtcp_skb_length_bytes_sum{at}"
        assert sent.histogram.big_share is not None
        assert sent.histogram.big_share > 0.9
        assert server.query(share) == [
            pytest.approx(sent.histogram.big_share, rel=1e-3)
        ]
        small = f'bigtcp_skb_length_bytes_bucket{at[:-1]},le="65536.0"}}'
        packets = f"1 - {small} / ignoring(le) {count}"
        assert server.query(packets) == [
            pytest.approx(sent.histogram.share_above(65536), rel=1e-2)
        ]
        assert server.query(
            'bigtcp_coverage_ratio{direction="tx",interface="eth0"}'
        ) == [pytest.approx(1, rel=0.01)]
        text = stand.client.call(lambda: fetch(f"{address}/metrics"))[1]
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input="".join(
            line for line in text.splitlines(keepends=True) if "bigtcp_" in line
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
