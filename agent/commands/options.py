# SPDX-License-Identifier: Apache-2.0
"""Flags that several commands share."""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import click

from agent import settings

T = TypeVar("T")


def with_cluster(command: Callable[..., T]) -> Callable[..., T]:
    """Flags that say where Cilium and Kubernetes are, as one `where`."""

    @functools.wraps(command)
    def with_where(  # noqa: PLR0913  a flag each
        *,
        cilium_socket: str,
        node_name: str,
        kubeconfig: str,
        cilium_namespace: str,
        cilium_config_map: str,
        watch_pods: bool,
        **others: object,
    ) -> T:
        where = settings.Cluster(
            cilium_socket,
            node_name,
            kubeconfig,
            cilium_namespace,
            cilium_config_map,
            watch_pods,
        )
        return command(where=where, **others)

    for flag, default, text in (
        ("--cilium-socket", settings.CILIUM_SOCKET, "Socket of Cilium's agent."),
        (
            "--node-name",
            "",
            "This node's name in Kubernetes; without it the API server is not asked.",
        ),
        ("--kubeconfig", "", "Without it: the pod's own account, or ~/.kube/config."),
        ("--cilium-namespace", "kube-system", "Where Cilium's ConfigMap is."),
        ("--cilium-config-map", "cilium-config", "Name of Cilium's ConfigMap."),
    ):
        with_where = click.option(
            flag,
            default=default,
            envvar=f"BIGTCP_{flag.removeprefix('--').replace('-', '_').upper()}",
            show_default=bool(default),
            show_envvar=True,
            help=text,
        )(with_where)
    return click.option(
        "--watch-pods",
        is_flag=True,
        envvar="BIGTCP_WATCH_PODS",
        show_envvar=True,
        help="Ask the API server for this node's pods, too: since when they run.",
    )(with_where)


def no_nan(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Click takes nan for a number."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no time")
    return value


url = click.option(
    "--url",
    envvar="BIGTCP_URL",
    show_envvar=True,
    help="The agent to ask. Without it: the agent of this node "
    "(http://127.0.0.1:19715) or, where none answers, probes of our own.",
)
output = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people or for machines.",
)
