# SPDX-License-Identifier: Apache-2.0
"""Text of others, fit for a terminal: nothing in it steers one. Pure."""

import json
import unicodedata
from typing import Any

# Control characters, and those that turn the direction of what follows.
_SPACES = str.maketrans("\r\n\t", "   ")
_STEERING = ("Cc", "Cf", "Cs", "Co")


def plain(text: str) -> str:
    """The text in one line, with a replacement character for each that is not to be
    seen.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(each) in _STEERING else each
        for each in text.translate(_SPACES)
    )


def plain_json(text: str | bytes) -> Any:
    """Parsed JSON, every text in it plain; ValueError also for NaN and Infinity."""
    return plainly(json.loads(text, parse_constant=_no_number))


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def plainly(value: Any) -> Any:
    """A value of JSON, every text in it plain."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list | tuple):
        return [plainly(each) for each in value]
    if isinstance(value, dict):
        return {plain(key): plainly(each) for key, each in value.items()}
    return value
