# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses from parsed JSON, strictly: what is wrong, and where.

Members that nobody asks for are left alone: within a version of a schema members
are only added.
"""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_MOST = 2**64  # the kernel's counters


def decode(cls: type[T], value: object, where: str = "") -> T:
    """A `cls` from a JSON object. Its fields may be str, int, float, dataclasses,
    tuples and dicts of these, and any of them or None. Numbers are not
    negative.

    ValueError says what is wrong and names the member, such as
    `families.ipv4.runs[2].ended: this is no number`.
    """
    if not isinstance(value, Mapping):
        raise _wrong(where, "this is no JSON object")
    hints = get_type_hints(cls)
    found = {}
    for field in fields(cls):
        at = f"{where}.{field.name}" if where else field.name
        if field.name not in value:
            raise _wrong(at, "this member is missing")
        found[field.name] = _value(hints[field.name], value[field.name], at)
    try:
        return cls(**found)
    except ValueError as err:  # what its members mean together
        raise _wrong(where, str(err)) from err


def _wrong(where: str, why: str) -> ValueError:
    return ValueError(f"{where}: {why}" if where else why)


def _value(kind: Any, value: object, where: str) -> object:
    origin, args = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        if value is None:
            return None
        return _value(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "this is no list")
        each = enumerate(value)
        return tuple(_value(args[0], item, f"{where}[{n}]") for n, item in each)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "this is no JSON object")
        return {key: _value(args[1], v, f"{where}.{key}") for key, v in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        return decode(kind, value, where)
    return _scalar(kind, value, where)


def _scalar(kind: type, value: object, where: str) -> object:
    if kind is str:
        if not isinstance(value, str):
            raise _wrong(where, "this is no text")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(where, "this is neither true nor false")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, "this is no number")
    if kind is int and not isinstance(value, int):
        raise _wrong(where, "this is no whole number")
    if not 0 <= value < _MOST:
        raise _wrong(where, "this number is out of range")
    return kind(value)
