# SPDX-License-Identifier: Apache-2.0
"""Flags that several commands share."""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from agent import settings

T = TypeVar("T")


def flag(*names: str, **more: Any) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """An option with a twin in the environment: --max-pods and BIGTCP_MAX_PODS."""
    twin = names[-1].removeprefix("--").replace("-", "_").upper()
    more.setdefault("envvar", f"BIGTCP_{twin}")
    has_default = more.get("default") not in (None, "")
    return click.option(*names, show_default=has_default, show_envvar=True, **more)


def with_cluster(command: Callable[..., T]) -> Callable[..., T]:
    """Flags that say where Cilium and Kubernetes are, as one `where`."""

    @functools.wraps(command)
    def with_where(  # noqa: PLR0913  a flag each
        *,
        cilium_socket: str,
        no_cilium: bool,
        node_name: str,
        kubeconfig: str,
        cilium_namespace: str,
        cilium_config_map: str,
        watch_pods: bool,
        cilium_pod: bool,
        **others: object,
    ) -> T:
        where = settings.Cluster(
            "" if no_cilium else cilium_socket,
            node_name,
            kubeconfig,
            cilium_namespace,
            cilium_config_map,
            watch_pods,
            cilium_pod,
        )
        return command(where=where, **others)

    decorated: Callable[..., T] = with_where
    for add in (
        flag(
            "--cilium-socket",
            default=settings.CILIUM_SOCKET,
            help="Socket of Cilium's agent.",
        ),
        flag(
            "--no-cilium",
            is_flag=True,
            help="Do not ask Cilium's agent, nor read what it left on this node.",
        ),
        flag(
            "--node-name",
            default="",
            help="This node's name in Kubernetes; without it the API server is not "
            "asked.",
        ),
        flag(
            "--kubeconfig",
            default="",
            help="Without it: the pod's own account, or ~/.kube/config.",
        ),
        flag(
            "--cilium-namespace",
            default="kube-system",
            help="Where Cilium's ConfigMap is.",
        ),
        flag(
            "--cilium-config-map",
            default="cilium-config",
            help="Name of Cilium's ConfigMap.",
        ),
        flag(
            "--watch-pods",
            is_flag=True,
            help="Ask the API server for this node's pods, too: since when they run, "
            "and the names of those that Cilium does not name.",
        ),
        flag(
            "--cilium-pod",
            is_flag=True,
            help="Ask the API server for the pod of Cilium's agent on this node, too: "
            "why it ended last.",
        ),
    ):
        decorated = add(decorated)
    return decorated


def no_nan(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """Click takes nan for a number."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no time")
    return value


url = flag(
    "--url",
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
