# SPDX-License-Identifier: Apache-2.0
"""Values of JSON or YAML that another program wrote, converted by type, strictly.

Members that a type does not name are skipped: within a version of a schema members
are only added. What is wrong is one sentence that names the member.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Number = Annotated[float, msgspec.Meta(ge=0, lt=2.0**64)]  # no NaN, no infinity

_PLACE = re.compile(r"(.*) - at `(?:key` in `)?\$([^`]*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.[]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_ANY_KEY = "[...]"  # how msgspec writes the key of a dict
_MAX_KEYS = 16  # that are tried to find it


def convert(value: object, kind: type[T]) -> T:
    """A `kind` from parsed JSON. ValueError says what is wrong and where, such as
    `families.ipv4.runs[2].ended: expected `float`, got `str``; `value` is then of no
    more use.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as err:
        raise ValueError(reason(err, _keys(err, value, kind))) from err


def reason(err: msgspec.ValidationError, keys: Sequence[str] = ()) -> str:
    """What is wrong, the member first; where its place has keys of dicts, these."""
    text, place = _parts(err)
    for key in keys:
        place = place.replace(_ANY_KEY, f".{key}", 1)
    if missing := _MISSING.fullmatch(text):
        text, place = "this member is missing", f"{place}.{missing[1]}"
    place = place.removeprefix(".")
    return f"{place}: {text[:1].lower()}{text[1:]}" if place else text


def _parts(err: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and where."""
    found = _PLACE.fullmatch(str(err))
    return (found[1], found[2]) if found else (str(err), "")


def _keys(err: msgspec.ValidationError, value: Any, kind: type[Any]) -> list[str]:
    """The keys that `[...]` stands for, as far as they can be told."""
    keys: list[str] = []
    at = value
    for name, index in _STEP.findall(_parts(err)[1]):
        if f"[{index}]" != _ANY_KEY:
            at = at[name or int(index)]
            continue
        for key in list(at)[:_MAX_KEYS]:
            member = at.pop(key)
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as other:
                if str(other) == str(err):  # of another member
                    continue
            keys.append(key)
            at[key] = at = member
            break
        else:
            break
    return keys
