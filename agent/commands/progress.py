# SPDX-License-Identifier: Apache-2.0
"""What a command that takes a while says meanwhile."""

import contextlib
import sys
from collections.abc import Iterator

import click


class Progress:
    """One line on stderr that is written over; a line each without a terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Say this now."""
        click.echo(
            f"\r\x1b[K{text}" if self._live else text, err=True, nl=not self._live
        )

    def clear(self) -> None:
        """Take the line away."""
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Say it, and leave no line behind."""
    line = Progress()
    try:
        yield line
    finally:
        line.clear()
