# SPDX-License-Identifier: Apache-2.0
"""Lines of a screen as pieces of text, each with its style. Pure.

A style is a rich style of the terminal's own sixteen colours, so that it can be
read on light and dark; what it says stands in the text, too.
"""

Span = tuple[str, str]
Spans = tuple[Span, ...]

PLAIN, BOLD, FAINT, MARK = "", "bold", "dim", "bold reverse"
GOOD, BAD, WARNING = "green", "bold red", "yellow"
KEY, SHARE = "bold cyan", "cyan"


def length(spans: Spans) -> int:
    """How many columns it takes."""
    return sum(len(text) for text, _ in spans)


def between(left: Spans, right: Spans, width: int) -> Spans:
    """Both ends of a line; where there is no room for both, the left one is cut."""
    room = width - length(right)
    kept: list[Span] = []
    for text, style in left:
        if room <= 1:
            break
        kept.append((cut(text, room - 1), style))
        room -= len(kept[-1][0])
    return (*kept, (" " * max(0, room), PLAIN), *right)


def cut(text: str, width: int) -> str:
    """At most `width` columns of it; an ellipsis where more was said."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
