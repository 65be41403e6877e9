# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent demo`: BIG TCP off and on, on this machine."""

import contextlib

import click

from agent.commands import ending
from agent.commands.options import output
from agent.commands.progress import progress


@click.command()
@click.option(
    "--topology",
    type=click.Choice(["pair", "router"]),
    default="pair",
    show_default=True,
    help="pair: client - server. router: client - router - server, whose uplink "
    "once stays at 64 KiB.",
)
@click.option(
    "--family",
    type=click.Choice(["ipv4", "ipv6", "both"]),
    default="both",
    show_default=True,
    help="IP families to measure.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Runs of each kind, in turns.",
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 3600),  # netperf takes a fraction for 0, 0 for ever
    default=1,
    show_default=True,
    help="Length of a run.",
)
@click.option(
    "--record",
    metavar="DIR",
    help="Write a record for each way of running, such as off.json and on.json, into "
    "this folder, for `compare`.",
)
@output
def demo(  # noqa: PLR0913  a flag each
    *,
    topology: str,
    family: str,
    rounds: int,
    seconds: int,
    record: str | None,
    output: str,
) -> None:
    """Measure BIG TCP off and on between two namespaces of this machine."""
    from agent.lab import demo as lab
    from agent.record.demo import records
    from agent.record.files import in_folder
    from agent.snapshot.model import Family
    from agent.views import report

    ending.as_by_ctrl_c()
    families = (Family.IPV4, Family.IPV6) if family == "both" else (Family(family),)
    ways = [way.name for way in lab.TOPOLOGIES[topology].ways]
    with contextlib.ExitStack() as told, in_folder(record, ways) as files:
        with progress() as show:
            result = lab.run(topology, families, rounds, seconds, show)
        # After the records, and whatever becomes of them: should one of both find no
        # room, the other is not lost.
        render = report.demo_json if output == "json" else report.demo_text
        told.callback(click.echo, render(result))
        arms = records(result)
        for way, file in files.items():
            file.write(arms[way].json() + "\n")
