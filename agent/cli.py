# SPDX-License-Identifier: Apache-2.0
"""The entry point: runs a command, and alone prints errors."""

import io
import os
import sys

import click

from agent.commands import cli
from agent.errors import AgentError, Exit
from agent.snapshot.plain import plain


def _tell(error: AgentError, *, verbose: bool) -> None:
    # Some of it is what others said.
    text = f"error: {plain(error.message)}\nhint: {plain(error.hint)}"
    click.echo(text, err=True)
    if verbose and error.detail:
        click.echo(error.detail, err=True)


def _forget_output() -> None:
    """What is still buffered has nowhere to go: no second error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flush() -> None:
    """What cannot be written any more must not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_standard_files() -> None:
    """Where stdin, stdout or stderr is closed, our files must not get its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004  stderr
        pass
    os.close(fd)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    # Not every encoding has our bars.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def main() -> None:
    """Run a command; its exit code is one of agent.errors.Exit."""
    _open_standard_files()
    verbose = bool({"-v", "--verbose"} & set(sys.argv[1:2])) or bool(
        os.environ.get("BIGTCP_VERBOSE")
    )
    try:
        code = cli.main(standalone_mode=False)
    except AgentError as err:
        _tell(err, verbose=verbose)
        code = err.exit_code
    except click.exceptions.NoArgsIsHelpError as err:
        click.echo(err.ctx.get_help() if err.ctx else "", err=True)
        code = Exit.USAGE
    except click.ClickException as err:
        command = (
            err.ctx.command_path
            if isinstance(err, click.UsageError) and err.ctx
            else "bigtcp-agent"
        )
        click.echo(
            f"error: {err.format_message()}\nhint: see '{command} --help'", err=True
        )
        code = Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        code = Exit.FAILED
        _forget_output()
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        _tell(
            AgentError(
                f"{where}{err.strerror or err}".lower(),
                "see free space, `ulimit -n` and what was killed, then try again",
            ),
            verbose=verbose,
        )
        code = Exit.FAILED
        _forget_output()
    _flush()
    sys.exit(code if isinstance(code, int) else Exit.OK)
