# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent top`: what passes now, on a screen, as text or as JSON."""

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING

import click

from agent import settings
from agent.commands.options import no_nan, url, with_cluster
from agent.errors import Exit

if TYPE_CHECKING:
    from agent.record.lines import Recording
    from agent.snapshot.sample import Sample
    from agent.watching import Live


@click.command()
@url
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    callback=no_nan,
    show_default=True,
    help="Seconds from sample to sample.",
)
@click.option("--once", is_flag=True, help="One interval, then end.")
@click.option(
    "--count", type=click.IntRange(1), help="So many intervals, as text, then end."
)
@click.option(
    "--record", metavar="FILE", help="Write every sample into a new file, too."
)
@click.option(
    "--replay",
    metavar="FILE",
    help="Show what was recorded; --once: all of it as one interval.",
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

    Asks the agent of this node, the one at --url or, where none answers, probes of
    its own. Press ? for help.
    """
    if replay and (record or url):
        other = "--record" if record else "--url"
        raise click.UsageError(f"--replay reads a file: {other} makes no sense with it")
    if once and count:
        raise click.UsageError("--once is --count 1: give one of them")
    count = 1 if once else count
    screen = output == "table" and count is None and _is_terminal()
    with contextlib.ExitStack() as stack:
        if screen:
            # It takes as long as asking, and longer than the compiler's child.
            name = "agent.views.top.app"
            Thread(target=importlib.import_module, args=(name,), daemon=True).start()
        else:
            # SIGTERM takes probes and files down as Ctrl-C does.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        if replay:
            from agent.record.lines import Recording

            recording = stack.enter_context(Recording(replay))
            if screen:
                return _screen_of_record(recording)
            _print(_pairs(_recorded(recording, whole=once)), output, count, str(replay))
            return Exit.OK
        live = _live(stack, url, where, record)
        if screen:
            return _screen(live, interval)
        _print(_pairs(_told(live, interval)), output, count, live.who)
    return Exit.OK


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


def _told(live: "Live", interval: float) -> Iterator["Sample"]:
    """Samples; that they are recorded no more is said once, on stderr."""
    said = False
    for sample in live.samples(interval):
        yield sample
        if live.problem and not said:
            said = True
            click.echo(f"warning: {live.problem}", err=True)


def _recorded(recording: "Recording", *, whole: bool) -> Iterator["Sample"]:
    from agent.record.lines import RecordError

    last = len(recording) - 1
    if not last:
        raise RecordError(
            f"{recording.path} holds one sample: no time passed",
            "let `top --record` run for longer",
        )
    yield from map(recording.sample, (0, last) if whole else range(last + 1))


def _pairs(samples: Iterator["Sample"]) -> Iterator[tuple["Sample", "Sample"]]:
    before = next(samples)
    for now in samples:
        yield before, now
        before = now


def _print(
    pairs: Iterator[tuple["Sample", "Sample"]],
    output: str,
    count: int | None,
    who: str,
) -> None:
    """So many pairs, or all of them, each written when it is there."""
    from agent.views.lines import top_document, top_rows, top_text

    indent = 2 if count == 1 else None
    forms: dict[str, Callable[[Sample, Sample], str]] = {
        "table": lambda before, now: top_text(before, now, who),
        "json": lambda before, now: json.dumps(
            top_document(before, now), indent=indent
        ),
        "ndjson": lambda before, now: "\n".join(top_rows(before, now)),
    }
    for done, (before, now) in enumerate(pairs, 1):
        if done > 1 and output == "table":
            click.echo()
        if text := forms[output](before, now):
            click.echo(text)
        if done == count:
            return
