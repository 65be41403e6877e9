# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent run`: the agent itself."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import click

from agent import __version__, settings
from agent.commands.ending import EndedError
from agent.commands.options import flag, with_cluster
from agent.errors import AgentError, Exit
from agent.snapshot.naming import Naming

if TYPE_CHECKING:
    from agent.server.auth import Authenticator

_HEARING_SECONDS = 0.1


@click.command()
@flag(
    "--listen",
    default=settings.DEFAULT_LISTEN,
    help="Where /metrics is served: HOST:PORT, [IPV6]:PORT or :PORT.",
)
@flag(
    "--web-config",
    default="",
    help="File with TLS and passwords for --listen, in the format of Prometheus' "
    "exporters. /livez and /readyz stay open.",
)
@flag(
    "--hooks",
    default=settings.DEFAULT_HOOKS,
    help="Hooks to attach. napi_gro_receive_entry sees every wire packet.",
)
@flag(
    "--interfaces",
    default=settings.DEFAULT_INTERFACES,
    help="Devices of this node to show by name: shell patterns, ! leaves out. "
    "The others are summed.",
)
@flag(
    "--max-interfaces",
    type=click.IntRange(0, 1000),
    default=settings.DEFAULT_MAX_INTERFACES,
    help="At most this many by name.",
)
@flag(
    "--max-pods",
    type=click.IntRange(0, 1000),
    default=0,
    help="Tell so many pods apart in bigtcp_pod_skb_length_bytes; needs Cilium.",
)
@flag(
    "--log-format",
    type=click.Choice(["auto", "text", "json"]),
    default="auto",
    help="auto: text on a terminal, JSON elsewhere.",
)
@with_cluster
def run(  # noqa: PLR0913  a flag each
    *,
    listen: str,
    web_config: str,
    hooks: str,
    interfaces: str,
    max_interfaces: int,
    max_pods: int,
    log_format: str,
    where: settings.Cluster,
) -> int:
    """Count this node's packets, serve /metrics until told to stop."""
    address = settings.Address.parse(listen)
    wanted = settings.parse_hooks(hooks)
    named = settings.Interfaces.parse(interfaces, max_interfaces)
    ending = _Ending()
    with contextlib.suppress(EndedError), contextlib.ExitStack() as stack, ending:
        from agent import logs, privileges
        from agent.node import opened
        from agent.server.http_server import Server
        from agent.server.routes import make_routes

        log = logs.configure(log_format)
        server = stack.enter_context(Server(address, _load_web_config(web_config)))
        naming = Naming(named.wants, named.most)
        node = stack.enter_context(
            opened(wanted, where, naming, max_pods, restrict=True)
        )
        probes, collector = node.probes, node.collector
        for hook, why in probes.failures.items():
            log.warning(
                "hook not attached",
                hook=hook,
                reason=why.message,
                detail=why.detail or None,
            )
        routes = make_routes(
            collector.snapshot,
            lambda seconds: collector.observe(seconds, ending.wait),
            node.pods.traffic if node.pods else None,
        )
        stack.enter_context(server.serving(routes))
        if threads := privileges.threads_with_capabilities():
            log.warning("threads keep capabilities", count=threads)
        log.info(
            "counting",
            hooks=[str(hook) for hook, on in probes.attached.items() if on],
            listen=str(address),
            version=__version__,
            seconds=probes.start_stages,
        )
        ending.wait_for_it(lambda: node.relay is not None and node.relay.ended)
        log.info("stopped")
    # A thread may be in bcrypt for seconds: Python would wait for it at exit, or abort.
    os._exit(ending.code)


def _load_web_config(web_config: str) -> "Authenticator | None":
    if not web_config:
        return None
    from agent.server.auth import Authenticator

    return Authenticator(web_config)


def _complain(unraisable: "sys.UnraisableHookArgs") -> None:
    """Where Python must ignore an exception it says so; ours is only late."""
    if unraisable.exc_type is not EndedError:
        sys.__unraisablehook__(unraisable)


class _Ending:
    """SIGTERM and Ctrl-C: while we start they interrupt, then they are waited for.

    To be entered last: what was entered before, no signal interrupts while it is
    taken down.
    """

    def __init__(self) -> None:
        self.code = Exit.OK
        self._heard = False
        self._starting = True
        self._over = threading.Event()

    def __enter__(self) -> Self:
        sys.unraisablehook = _complain
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._starting = False
        self._over.set()

    def _hear(self, number: int, _: object) -> None:
        # No lock in here: whom this interrupts may hold it.
        if not self._heard:
            self._heard = True
            self.code = Exit.INTERRUPTED if number == signal.SIGINT else Exit.OK
            if self._starting:
                raise EndedError

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until we end."""
        return self._over.wait(seconds)

    def wait_for_it(self, relay_ended: Callable[[], bool]) -> None:
        """The start is over: wait until told to end.

        AgentError where `relay_ended`: it cannot be started again by a process that
        has given up unix sockets, and without it a Cilium that answers looks mute.
        """
        self._starting = False
        # Again and again: where a server's thread takes the signal, a main thread
        # that waits for ever never gets to hear of it.
        while not self._heard:
            if relay_ended():
                raise AgentError(
                    "the process that asks Cilium has ended",
                    "start the agent again; if it ends so again, look for the kernel's "
                    "OOM killer: dmesg | grep -i oom",
                )
            time.sleep(_HEARING_SECONDS)
