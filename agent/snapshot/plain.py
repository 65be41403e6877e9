# SPDX-License-Identifier: Apache-2.0
"""Text of others, fit for a terminal: nothing in it steers one. Pure."""

import json
import unicodedata
from typing import Any

# Control characters, and those that turn the direction of what follows.
_STEERING = ("Cc", "Cf", "Cs", "Co")


def plain(text: str) -> str:
    """The text with a replacement character for each that is not to be seen; line
    breaks and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(each) in _STEERING and each not in "\n\t"
        else each
        for each in text
    )


def plain_json(text: str | bytes) -> Any:
    """Parsed JSON, every text in it plain; ValueError also for NaN and Infinity."""
    return _plain(json.loads(text, parse_constant=_no_number))


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {plain(key): _plain(each) for key, each in value.items()}
    return value
