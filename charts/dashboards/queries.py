# SPDX-License-Identifier: Apache-2.0
"""PromQL of the dashboards.

The overview reads what charts/bigtcp-agent/rules/recording.yaml keeps of a node, so
that it is quick with thousands; the others read one node's own series.

A packet passes several hooks and devices: no query sums over `hook` or `scope`.
"""

from agent.snapshot.verdict import State

SENT, RECEIVED = "net_dev_start_xmit", "netif_receive_skb"
HOOKS = {"sent": SENT, "received": RECEIVED}
FAMILIES = {"IPv4": "ipv4", "IPv6": "ipv6"}
# Every selector has these; the order is that of the variables.
TARGET = 'cluster=~"$cluster",job=~"$job",node=~"$node",instance=~"$instance"'
NODE = "cluster, job, instance, node"
INTERFACE = 'interface=~"$interface"'
RATE = "[$__rate_interval]"
# Of the states of a verdict, what Grafana draws: a number each.
CODES = {state: code for code, state in enumerate(State)}


def eq(label: str, value: str) -> str:
    """A matcher."""
    return f'{label}="{value}"'


def select(metric: str, *matchers: str) -> str:
    """A selector of the chosen targets."""
    return f"{metric}{{{','.join((TARGET, *matchers))}}}"


def rate(metric: str, *matchers: str) -> str:
    """Growth a second of a counter."""
    return f"rate({select(metric, *matchers)}{RATE})"


def over(operator: str, by: str, expr: str) -> str:
    """An aggregation."""
    return f"{operator} by ({by}) ({expr})"


def verdict(metric: str, by: str, *matchers: str) -> str:
    """The code of the state that holds, by these labels."""
    states = (
        f"{code} * ({select(metric, *matchers, eq('state', state))} == 1)"
        for state, code in CODES.items()
    )
    return over("max", by, " or ".join(states))


def recorded_share(by: str, *matchers: str) -> str:
    """Share of the bytes above 64 KiB, of the recorded series."""
    big = select("node:bigtcp_big_skb_bytes:rate5m", *matchers)
    of = select("node:bigtcp_skb_length_bytes_sum:rate5m", *matchers)
    return f"{over('sum', by, big)} / {over('sum', by, of)}"


def node_share(by: str, *matchers: str) -> str:
    """Share of the bytes above 64 KiB, of a node's own series."""
    big = rate("bigtcp_big_skb_bytes_total", *matchers)
    of = rate("bigtcp_skb_length_bytes_sum", *matchers)
    return f"{over('sum', by, big)} / {over('sum', by, of)}"


def whole(by: str, *matchers: str) -> str:
    """Skbs above 64 KiB a second that left a device in one piece."""
    sent = (eq("hook", SENT), *matchers)
    count = rate("bigtcp_skb_length_bytes_count", *sent)
    small = rate("bigtcp_skb_length_bytes_bucket", *sent, eq("le", "65536.0"))
    return f"{over('sum', by, count)} - {over('sum', by, small)}"


def heatmap(metric: str, *matchers: str) -> str:
    """Skbs a second by the edges of a classic histogram."""
    return over("sum", "le", rate(f"{metric}_bucket", *matchers))


def netperf_with(big_tcp: str) -> str:
    """Median transactions/s of the runs in the range, with BIG TCP `on` or `off`.

    Each run is a target of its own.
    """
    metric = "node:bigtcp_netperf_transactions_per_second:max"
    runs = f"last_over_time({select(metric, eq('big_tcp', big_tcp))}[$__range])"
    return f"quantile by (cluster, ip_family) (0.5, {runs})"


def changed(metric: str) -> str:
    """When Cilium's configuration last changed, in milliseconds. The series is born
    with the first change, which changes() would not see.
    """
    return "1000 * " + over("max", "cluster", select(metric))
