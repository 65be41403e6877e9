# SPDX-License-Identifier: Apache-2.0
"""Logs: on stderr, for people on a terminal, as JSON elsewhere."""

import contextlib
import io
import logging
import sys
from typing import Any, TextIO, cast

import structlog


class _Undisturbed(io.TextIOBase):
    """A stream whose reader may go: who logs goes on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(log_format: str) -> Any:
    """Set structlog up once; `log_format` is auto, text or json. The root logger."""
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(
            cast(TextIO, _Undisturbed(sys.stderr))
        ),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger("agent")


def silence() -> None:
    """For commands whose answer says all: what is logged would stand between."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )
