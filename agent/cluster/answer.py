# SPDX-License-Identifier: Apache-2.0
"""JSON that another program wrote, decoded by type without trusting it.

What a type does not name is skipped, and takes no memory. Absent and null are both
None, as Go omits zero values; a field of another type is an OSError that names it.
"""

import re
from typing import Annotated, TypeVar

import msgspec

from agent.typed_json import reason

T = TypeVar("T")
# With these an answer of 16 MiB takes at most 100 MiB, itself included
# (tests/sources/test_memory.py). A pod in the recordings has 134 quotes, 14 braces.
MAX_OBJECTS = 500_000
MAX_QUOTES = 1_000_000
# One character beyond U+FFFF makes each of its string take 4 bytes.
MAX_WIDE_BYTES = 4 << 20
_WIDE = re.compile(rb"[\x80-\xff]|\\u(?!00[0-7])")

Text = Annotated[str, msgspec.Meta(max_length=1 << 16)] | None
Texts = Annotated[list[Text], msgspec.Meta(max_length=4096)] | None
Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None
Ifindex = Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)] | None


class Fields(msgspec.Struct, rename="kebab", gc=False):
    """The fields of an object that are read."""


def decode(data: bytes | bytearray, kind: type[T], giver: str) -> T:
    """Decode JSON. OSError, with a sentence, where it is none, is not of this kind, or
    would take too much memory. Nested too deeply is none, either.
    """
    if data.count(b"{") > MAX_OBJECTS or data.count(b'"') > MAX_QUOTES:
        raise OSError(f"{giver} answers too many objects or strings")
    if len(data) > MAX_WIDE_BYTES and _WIDE.search(data):
        raise OSError(
            f"{giver} answers more than {MAX_WIDE_BYTES:,} bytes, not all ASCII"
        )
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as err:
        raise OSError(f"{giver}: {reason(err)}") from err
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as err:
        raise OSError(f"the answer of {giver} is not JSON") from err


def printable(text: str | None) -> str:
    """What a terminal and /metrics can show: no control characters, no halves of
    surrogate pairs. None is the empty text.
    """
    if not text or text.isprintable():
        return text or ""
    return "".join(char for char in text if char.isprintable())
