# SPDX-License-Identifier: Apache-2.0
"""The commands, a module each. What is heavy they import when they run."""

import click

from agent import __version__
from agent.commands.check import check
from agent.commands.compare import compare
from agent.commands.demo import demo
from agent.commands.netperf import netperf
from agent.commands.run import run
from agent.commands.top import top


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bigtcp-agent")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    envvar="BIGTCP_VERBOSE",
    help="With an error, show what the compiler or the kernel's verifier said.",
)
def cli(*, verbose: bool) -> None:
    """Is BIG TCP really on? Count the packets above 64 KiB and see."""


for _command in (run, check, top, demo, netperf, compare):
    cli.add_command(_command)
