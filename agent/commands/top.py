# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent top`: what passes now, on a screen, as text or as JSON."""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from agent import settings
from agent.commands import ending
from agent.commands.options import no_nan, url, with_cluster
from agent.errors import AgentError, Exit
from agent.snapshot.plain import plain

if TYPE_CHECKING:
    from agent.record.lines import Recording
    from agent.snapshot.sample import Period, Sample
    from agent.watching import Live


@click.command()
@url
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    callback=no_nan,
    show_default=True,
    help="Seconds between two samples.",
)
@click.option("--once", is_flag=True, help="Show one interval, then end.")
@click.option(
    "--count", type=click.IntRange(1), help="Show so many intervals as text, then end."
)
@click.option(
    "--record",
    metavar="FILE",
    help="Also write every sample to a new file. If the file cannot be written any "
    "more, top goes on, and its exit code is 1.",
)
@click.option(
    "--replay",
    metavar="FILE",
    help="Show a record. With --once it is one interval, without the time in which "
    "the agent did not run.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "ndjson"]),
    default="table",
    show_default=True,
    help="table: a screen or, without a terminal, text. json: an object per "
    "interval. ndjson: a line per row.",
)
@with_cluster
def top(  # noqa: PLR0913  a flag each
    *,
    url: str | None,
    interval: float,
    once: bool,
    count: int | None,
    record: str | None,
    replay: str | None,
    output: str,
    where: settings.Cluster,
) -> int:
    """See big packets live: which devices and pods, how big, where they are cut.

    It asks the agent of this node. If none answers, it attaches probes of its own; with
    --url it asks that agent only. Press ? for help.
    """
    # An agent's own pod has BIGTCP_URL, for what asks it.
    given = click.get_current_context().get_parameter_source("url")
    if replay and (record or given is ParameterSource.COMMANDLINE):
        other = "--record" if record else "--url"
        raise click.UsageError(f"--replay and {other} cannot be combined")
    if once and count:
        raise click.UsageError("--once and --count cannot be combined")
    count = 1 if once else count
    screen = output == "table" and count is None and _is_terminal()
    with contextlib.ExitStack() as stack:
        if screen:
            # It takes as long as asking, and longer than the compiler's child.
            name = "agent.views.top.app"
            Thread(target=importlib.import_module, args=(name,), daemon=True).start()
        else:
            ending.as_by_ctrl_c()
        if replay:
            from agent.record.lines import Recording, no_interval

            recording = stack.enter_context(Recording(replay))
            if screen:
                return _screen_of_record(recording)
            told = _whole(recording) if once else _passed(recording.samples())
            if not _print(told, output, count, replay):
                raise no_interval(replay)
            return Exit.OK
        live = _live(stack, url, where, record)
        code: int = Exit.OK
        if screen:
            code = _screen(live, interval)
        else:
            told = _passed(_told(live, interval, patient=count is None))
            _print(told, output, count, live.who)
        if code == Exit.OK:
            live.require_record()
    return code


def _is_terminal() -> bool:
    """Is there a screen, and a keyboard? The screen is drawn on stderr."""
    files = (sys.stdin, sys.stdout, sys.stderr)
    return all(file.isatty() for file in files) and os.environ.get("TERM", "") not in (
        "",
        "dumb",
    )


def _live(
    stack: contextlib.ExitStack,
    url: str | None,
    where: settings.Cluster,
    record: str | None,
) -> "Live":
    from agent import inquiry
    from agent.record.lines import Writer
    from agent.watching import Live

    asked = stack.enter_context(inquiry.asked(url, where))
    writer = stack.enter_context(Writer(record)) if record else None
    return Live(asked, writer, record or "")


def _screen(live: "Live", interval: float) -> int:
    from agent.views.top.app import run
    from agent.watching import LiveFeed

    return run(LiveFeed(live, interval))


def _screen_of_record(recording: "Recording") -> int:
    from agent.views.top.app import run
    from agent.watching import ReplayFeed

    return run(ReplayFeed(recording))


def _told(live: "Live", interval: float, *, patient: bool) -> Iterator["Sample"]:
    """Samples. `patient`: where nobody answers for a while it goes on. That, and that
    they are recorded no more, is said once, on stderr.
    """
    silent = said = False

    def missed(err: AgentError) -> None:
        nonlocal silent
        if not silent:
            silent = True
            click.echo(f"warning: {plain(err.message)}; trying again", err=True)

    for sample in live.samples(interval, missed if patient else None):
        silent = False
        yield sample
        if live.problem and not said:
            said = True
            click.echo(f"warning: {live.problem}", err=True)


def _whole(recording: "Recording") -> Iterator[tuple["Sample", "Period"]]:
    yield recording.sample(len(recording) - 1), recording.whole()


def _passed(samples: Iterator["Sample"]) -> Iterator[tuple["Sample", "Period"]]:
    """What passed from sample to sample, except where the agent was restarted."""
    before = next(samples)
    for now in samples:
        if now.started == before.started:
            yield now, now.since(before)
        before = now


def _print(
    passed: Iterator[tuple["Sample", "Period"]],
    output: str,
    count: int | None,
    who: str,
) -> int:
    """So many periods, or all of them, each written when it is there; how many."""
    from agent.views.lines import top_document, top_rows, top_text

    indent = 2 if count == 1 else None
    forms: dict[str, Callable[[Sample, Period], str]] = {
        "table": lambda now, period: top_text(now, period, who),
        "json": lambda now, period: json.dumps(
            top_document(now, period, who), indent=indent
        ),
        "ndjson": lambda now, period: "\n".join(top_rows(now, period)),
    }
    done = 0
    for done, (now, period) in enumerate(passed, 1):
        if done > 1 and output == "table":
            click.echo()
        if text := forms[output](now, period):
            click.echo(text)
        if done == count:
            break
    return done
