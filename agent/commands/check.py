# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent check`: the verdict, once or again and again."""

import json
import time

import click

from agent import settings
from agent.commands import options
from agent.commands.options import no_nan, with_cluster
from agent.errors import AgentError, Exit

_WATCH_SECONDS = 2.0


@click.command()
@options.url
@click.option(
    "--seconds",
    type=click.FloatRange(0, 60, min_open=True),
    callback=no_nan,
    help="Observe for so long. Otherwise: what the agent saw in the last 30 s, or "
    "since it was last asked.",
)
@click.option("--watch", is_flag=True, help="Every 2 s, until Ctrl-C.")
@options.output
@with_cluster
def check(
    *,
    url: str | None,
    seconds: float | None,
    watch: bool,
    output: str,
    where: settings.Cluster,
) -> int:
    """Is BIG TCP on, here, for these pods, or why not?

    Exit code 5: there is a finding that is a warning or critical.
    """
    from agent import inquiry
    from agent.snapshot.schema import SnapshotJson
    from agent.typed_json import convert
    from agent.views.check import check_text

    code = Exit.OK
    with inquiry.asked(url, where) as asked:
        while True:
            picture = asked.observed(seconds)
            try:
                snapshot = convert(picture, SnapshotJson)
            except ValueError as err:
                raise AgentError(
                    f"{url or inquiry.LOCAL_AGENT} did not answer as an agent does: "
                    f"{err}",
                    "is this the agent's address?",
                ) from err
            text = (
                json.dumps(picture, indent=None if watch else 2)
                if output == "json"
                else check_text(snapshot, asked.who)
            )
            bad = any(each.severity != "info" for each in snapshot.findings)
            if watch and output == "table":
                click.clear()
            click.echo(text)
            code = Exit.FINDINGS if bad else Exit.OK
            if not watch:
                return code
            time.sleep(_WATCH_SECONDS)
