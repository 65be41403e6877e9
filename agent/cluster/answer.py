# SPDX-License-Identifier: Apache-2.0
"""JSON that another program wrote, read without trusting it.

An absent field, and null, are the zero value of their type, as in Go with
omitempty. A field of another type is an OSError that names it.
"""

import json
from typing import Any, Self

_INT64_END = 1 << 63
_NAMES = {dict: "an object", list: "a list", str: "text", bool: "a boolean"}


class Answer:
    """A JSON object: who gave it, and under which path it stands there."""

    def __init__(self, fields: dict[str, Any], giver: str, path: str = "") -> None:
        self._fields = fields
        self._giver = giver
        self._path = path

    @classmethod
    def parse(cls, data: bytes, giver: str) -> Self:
        """An object's text. OSError where it is no JSON, or no object."""
        found = parse(data, giver)
        if not isinstance(found, dict):
            raise OSError(f"{giver} answers no JSON object")
        return cls(found, giver)

    def has(self, name: str) -> bool:
        """Is there such a field, and not null?"""
        return self._fields.get(name) is not None

    def any(self, name: str) -> object:
        """Whatever stands there, or None."""
        return self._fields.get(name)

    def inner(self, name: str) -> Self:
        """A field that is an object itself."""
        fields = self._checked(name, self.any(name), dict, {})
        return type(self)(fields, self._giver, f"{self._path}{name}.")

    def inners(self, name: str) -> list[Self]:
        """A list of objects; what is no object in it is left out."""
        return [
            type(self)(one, self._giver, f"{self._path}{name}[{at}].")
            for at, one in enumerate(self._checked(name, self.any(name), list, []))
            if isinstance(one, dict)
        ]

    def text(self, name: str) -> str:
        """A string, as `printable` leaves it."""
        return printable(self._checked(name, self.any(name), str, ""))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(
            printable(self._checked(f"{name}[{at}]", one, str, ""))
            for at, one in enumerate(self._checked(name, self.any(name), list, []))
        )

    def flag(self, name: str) -> bool:
        """A boolean."""
        return bool(self._checked(name, self.any(name), bool, False))

    def number(self, name: str) -> int:
        """An integer from 0 to 2**63 - 1."""
        found = self.any(name)
        number: int = self._checked(name, found, int, 0)
        if isinstance(found, bool) or not 0 <= number < _INT64_END:
            raise OSError(f"{self._giver}: {self._path}{name} is no size or index")
        return number

    def _checked(self, name: str, found: Any, kind: type, zero: Any) -> Any:
        if found is None:
            return zero
        if not isinstance(found, kind):
            what = _NAMES.get(type(found), "a number")
            raise OSError(f"{self._giver}: {self._path}{name} is {what}")
        return found


def parse(data: bytes, giver: str) -> object:
    """Any JSON; OSError where it is none. Nested too deeply is none, either."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as err:
        raise OSError(f"{giver} answers no JSON") from err


def printable(text: str) -> str:
    """What a terminal and /metrics can show: no control characters, no halves of
    surrogate pairs.
    """
    if text.isprintable():
        return text
    return "".join(char for char in text if char.isprintable())
