# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent netperf`: the lab's test, joined with what the kernel saw."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from agent import inquiry, settings
from agent.commands import ending, options
from agent.commands.options import flag
from agent.commands.progress import Progress, progress
from agent.errors import BadValueError, Exit

if TYPE_CHECKING:
    from agent.record.netperf import Record

# An agent's own pod has BIGTCP_LISTEN, for the agent.
_LISTEN = "BIGTCP_NETPERF_LISTEN"


@click.command()
@flag(
    "--server",
    required=True,
    metavar="HOST[:PORT]",
    help="Where netserver runs: a name or an address; an IPv6 one with a port in [].",
)
@flag(
    "--family",
    type=click.Choice(["ipv4", "ipv6", "both"]),
    default="both",
    help="IP families to measure. both: every one that the server has.",
)
@flag(
    "-r",
    "--messages",
    default="80000:80000",
    metavar="REQUEST:RESPONSE",
    help="Bytes of a request and of a response.",
)
@flag(
    "-l",
    "--seconds",
    type=click.IntRange(1, 3600),  # netperf takes a fraction for 0, 0 for ever
    default=3,
    help="Length of a run.",
)
@flag(
    "--repeats",
    type=click.IntRange(1, 1000),
    default=5,
    help="Runs of each family, in turns; `compare` wants 3 at least.",
)
@flag(
    "--cpu",
    type=click.IntRange(0),
    help="Pin netperf to this CPU.",
)
@flag(
    "--name",
    default="",
    help="What `compare` calls this record; without it: the file's name.",
)
@flag(
    "--url",
    default=inquiry.LOCAL_AGENT,
    help="The agent of this node, which tells what passed. Without one there are "
    "results, but no histograms.",
)
@flag(
    "--record",
    metavar="FILE",
    help="Write the record to a new file, for `compare`.",
)
@flag(
    "--listen",
    metavar="ADDRESS",
    envvar=_LISTEN,
    help="Serve the results at /metrics: HOST:PORT, [IPV6]:PORT or :PORT.",
)
@flag(
    "--hold",
    type=click.IntRange(0, 86400),
    default=60,
    help="With --listen: go on serving for so many seconds after the last run.",
)
@options.output
def netperf(  # noqa: PLR0913  a flag each
    *,
    server: str,
    family: str,
    messages: str,
    seconds: int,
    repeats: int,
    cpu: int | None,
    name: str,
    url: str,
    record: str | None,
    listen: str | None,
    hold: int,
    output: str,
) -> int:
    """Measure TCP_RR against a netserver, and what the kernel saw of it.

    Where the agent of this node answers, the record has the histogram of each run. A
    run that fails is the last; those before it are kept.
    """
    from agent import logs, measurement
    from agent.lab.netperf import PORT
    from agent.record.files import whole
    from agent.snapshot.experiment import TcpRr
    from agent.snapshot.model import Family
    from agent.views.netperf import netperf_text
    from agent.witness import Witness

    ending.as_by_ctrl_c()
    logs.silence()
    where = settings.Server.parse(server, PORT)
    address = settings.Address.parse(listen) if listen else None
    request, response = settings.parse_messages(messages)
    url = inquiry.address(url)
    _require_cpu(cpu)
    families = (Family.IPV4, Family.IPV6) if family == "both" else (Family(family),)
    test = TcpRr(request, response, seconds, repeats, cpu)
    with contextlib.ExitStack() as stack:
        publish = stack.enter_context(_serving(address)) if address else None
        with (
            contextlib.ExitStack() as told,
            whole(record) if record else contextlib.nullcontext() as file,
        ):
            found = measurement.find(str(where), where.host, where.port, families)
            with progress() as show:
                witness = Witness(url, measurement.own_netns(), _note(show))
                measured, failed = measurement.measure(name, test, found, witness, show)
            # After the record, and whatever becomes of it: should one of them find
            # no room, the other is not lost.
            text = measured.json() if output == "json" else netperf_text(measured)
            told.callback(click.echo, text)
            if file:
                file.write(measured.json() + "\n")
        if failed:
            raise failed
        if publish:
            _hold(hold, lambda: publish(measured))
    return Exit.OK


def _require_cpu(cpu: int | None) -> None:
    ours = os.sched_getaffinity(0)
    if cpu is not None and cpu not in ours:
        raise BadValueError(
            f"--cpu {cpu} is no CPU that we may use",
            f"ours are {', '.join(map(str, sorted(ours)))}",
        )


def _note(show: Progress) -> Callable[[str], None]:
    def note(text: str) -> None:
        show.clear()
        click.echo(f"note: {text}", err=True)

    return note


@contextlib.contextmanager
def _serving(address: settings.Address) -> "Iterator[Callable[[Record], None]]":
    """Serve the record that is published, and before it metrics without samples: a
    scrape during the runs finds somebody.
    """
    from agent.server.http_server import Server
    from agent.server.routes import metrics_routes
    from agent.views.netperf_metrics import metrics_application

    published: list[Record] = []
    app = metrics_application(lambda: published[-1] if published else None)
    with Server(address) as server, server.serving(metrics_routes(app)):
        yield published.append


def _hold(seconds: int, publish: Callable[[], None]) -> None:
    """Publish and wait for so long, or until SIGTERM: who has seen the results may end
    us, and that is no failure.
    """

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # we are ending
        raise ending.EndedError

    with contextlib.suppress(ending.EndedError):
        signal.signal(signal.SIGTERM, end)
        publish()
        time.sleep(seconds)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
