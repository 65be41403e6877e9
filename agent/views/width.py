# SPDX-License-Identifier: Apache-2.0
"""How wide a text is, and what becomes of one that is too wide. Pure.

One rule for all that people read, whatever a machine calls its CPU, kernel, devices
and pods:

- Prose is wrapped. A word that is wider than a line goes on in the next one.
- A name in a table or a title is shortened in its middle, a sentence that has one line
  is cut at its end, both with an ellipsis. A number is never shortened.
- What is copied stays whole, however wide it is: a URL, a path, JSON, a command. On a
  screen, which has an end, it is cut; a command is wrapped.
- On stderr each error, hint, note and warning is one line, for logs and for grep.

A width is in columns of a terminal: a wide character takes two, a combining one none.
"""

import re
from collections.abc import Collection

from rich.cells import cell_len, chop_cells, set_cell_size, split_text

WIDTH = 80
_ELLIPSIS = "…"
_LEAST = 8  # columns of a table's column that is shortened
_COPIED = re.compile(r"\W?(\w+:/)?/")


def columns(text: str) -> int:
    """How many columns it takes."""
    return cell_len(text)


def left(text: str, width: int) -> str:
    """Filled up with blanks to `width` columns."""
    return text if columns(text) >= width else set_cell_size(text, width)


def right(text: str, width: int) -> str:
    """Moved to the right of `width` columns."""
    return " " * (width - columns(text)) + text


def cut(text: str, width: int) -> str:
    """At most `width` columns of it; an ellipsis where more was said."""
    if columns(text) <= width:
        return text
    return split_text(text, width - 1)[0] + _ELLIPSIS if width > 0 else ""


def shorten(name: str, width: int) -> str:
    """At most `width` columns: the middle of a name is what tells least."""
    whole = columns(name)
    if whole <= width:
        return name
    if width < 3:  # noqa: PLR2004  no room for an ellipsis
        return split_text(name, max(0, width))[0]
    head = (width - 1) // 2
    begin, end = split_text(name, head)[0], split_text(name, whole - width + 1 + head)
    return f"{begin}{_ELLIPSIS}{end[1]}"


def wrap(
    text: str, width: int = WIDTH, *, first: str = "", then: str = ""
) -> list[str]:
    """Its lines, the first after the blanks of `first`, the others after `then`; none
    where there is no word.

    textwrap counts characters, not columns, and breaks at hyphens, which names have.
    """
    lines: list[str] = []
    line = first
    room = max(1, width - max(columns(first), columns(then)))
    for word in text.split():
        copied = columns(word) <= room or _COPIED.match(word)
        for number, piece in enumerate([word] if copied else chop_cells(word, room)):
            if line == first:
                line += piece
            elif number or columns(f"{line} {piece}") > width:
                lines.append(line)
                line = then + piece
            else:
                line += f" {piece}"
    return [*lines, line] if line != first else lines


def beside(text: str, copied: str, width: int = WIDTH) -> list[str]:
    """A text, then what is copied: in a line of its own where both do not fit."""
    line = f"{text} {copied}"
    return [line] if columns(line) <= width else [*wrap(text, width), copied]


def table(
    rows: list[list[str]], width: int = WIDTH, names: Collection[int] = (0,)
) -> list[str]:
    """Lines of a table: first column to the left, the others to the right.

    Where it is too wide, the columns of `names` are shortened, the widest one first.
    """
    widths = [max(map(columns, cells)) for cells in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width:
        widest = max(names, key=widths.__getitem__)
        if widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    return [
        "  ".join(
            (right if at else left)(shorten(cell, its) if at in names else cell, its)
            for at, (cell, its) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
