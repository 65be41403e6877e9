# SPDX-License-Identifier: Apache-2.0
"""`bigtcp-agent compare`: what one record has over another."""

import contextlib
import math
from statistics import median
from typing import TYPE_CHECKING

import click

from agent.commands.options import output
from agent.errors import AgentError, Exit

if TYPE_CHECKING:
    from agent.snapshot.comparison import Compared


_PAGE = b"<!doctype html"  # a record is never written over
_ROUNDING = 1e-9


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no percentage")
    return value


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--html",
    metavar="FILE",
    help="Write a page with the histograms and latencies drawn, too; nothing else is "
    "needed to show it.",
)
@click.option(
    "--fail-below",
    type=float,
    metavar="PCT",
    callback=_finite,
    help="Exit code 5 where the median of transactions/s (of bytes/s, for records of "
    "top) of B is not at least PCT per cent above A's, in any family in which A's is "
    "not 0. -5 forgives a loss of 5 per cent, 10 demands a gain of 10.",
)
@output
def compare(
    *, a: str, b: str, html: str | None, fail_below: float | None, output: str
) -> int:
    """Compare two records: of netperf (or demo --record), or of top.

    Medians of all runs, the difference of B against A, and the interval in which it
    lies with 95 % confidence (bootstrap). Better or worse where that leaves out 0 and
    the difference can be measured.
    """
    from agent.record.files import whole
    from agent.record.measured import read
    from agent.snapshot import comparison
    from agent.views.comparison import compared_json, compared_text
    from agent.views.page import compared_html

    compared = comparison.compare(read(a), read(b))
    with whole(html, over=_PAGE) if html else contextlib.nullcontext() as file:
        if file:
            file.write(compared_html(compared))
    click.echo((compared_json if output == "json" else compared_text)(compared))
    return Exit.OK if fail_below is None else _judged(compared, fail_below)


def _judged(compared: "Compared", least: float) -> int:
    """FINDINGS, with a line each, where a family falls short of `least` per cent."""
    from agent.snapshot.comparison import THROUGHPUT

    gains = {
        family: row.percent.difference
        for family, row in compared.throughput.items()
        if row.percent
    }
    if not gains:
        raise AgentError(
            "--fail-below: A measured nothing, so there is no per cent of it",
            "compare with a record that has traffic",
        )
    for family, facts in compared.a.families.items():
        had = any(median(facts.values.get(at) or (0,)) for at in THROUGHPUT)
        if had and family not in compared.b.families:
            gains[family] = -100.0  # B has lost all of it
    code = Exit.OK
    for family, gain in gains.items():
        if gain < least - _ROUNDING:
            click.echo(f"{family}: {gain:+.1f} % is below {least:+g} %", err=True)
            code = Exit.FINDINGS
    return code
