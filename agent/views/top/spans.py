# SPDX-License-Identifier: Apache-2.0
"""Lines of a screen as pieces of text, each with its style. Pure.

A style is a rich style of the terminal's own sixteen colours, so that it can be
read on light and dark; what it says stands in the text, too.
"""

from agent.views.width import columns, cut

Span = tuple[str, str]
Spans = tuple[Span, ...]

PLAIN, BOLD, FAINT, MARK = "", "bold", "dim", "bold reverse"
GOOD, BAD, WARNING = "green", "bold red", "yellow"
KEY, SHARE = "bold cyan", "cyan"


def length(spans: Spans) -> int:
    """How many columns it takes."""
    return sum(columns(text) for text, _ in spans)


def between(left: Spans, right: Spans, width: int) -> Spans:
    """Both ends of a line; where there is no room for both, the left one is cut; the
    right one where it has no room alone.
    """
    right = fitted(right, width)
    room = width - length(right)
    kept = fitted(left, room - 1)
    return (*kept, (" " * (room - length(kept)), PLAIN), *right)


def fitted(spans: Spans, width: int) -> Spans:
    """At most `width` columns of a line; an ellipsis where more was said."""
    kept: list[Span] = []
    for text, style in spans:
        if width <= 0:
            break
        kept.append((cut(text, width), style))
        width -= columns(kept[-1][0])
    return tuple(kept)
