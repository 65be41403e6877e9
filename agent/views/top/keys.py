# SPDX-License-Identifier: Apache-2.0
"""Which key does what; agent.views.top.texts tells people."""

from textual.binding import Binding, BindingType

from agent.errors import Exit

BINDINGS: list[BindingType] = [
    Binding("q", "end(0)"),
    Binding("ctrl+c,ctrl+q", f"end({int(Exit.INTERRUPTED)})", priority=True),
    Binding("ctrl+z", "suspend_process", priority=True),
    Binding("s", "sort(1)"),
    Binding("greater_than_sign", "sort(1)"),
    Binding("less_than_sign", "sort(-1)"),
    Binding("S", "backwards"),
    # Priority: what follows at once, on a slow line, is for the filter already.
    Binding("slash", "filter", priority=True),
    Binding("f", "family"),
    Binding("4", "family('v4')"),
    Binding("6", "family('v6')"),
    Binding("0", "family('')"),
    Binding("h", "hook"),
    Binding("p", "kind"),
    Binding("o", "others"),
    Binding("space", "pause"),
    Binding("plus,equals_sign", "longer(1)"),
    Binding("minus", "longer(-1)"),
    Binding("F", "pane('findings')"),
    Binding("tab", "pane('findings')", priority=True),
    Binding("question_mark", "pane('help')"),
    Binding("enter", "pane('histogram')"),
    Binding("escape", "leave", priority=True),
    Binding("up,k", "move(-1)"),
    Binding("down,j", "move(1)"),
    Binding("pageup", "page(-1)"),
    Binding("pagedown", "page(1)"),
    Binding("home", "to_end(0)"),
    Binding("end", "to_end(1)"),
    Binding("left", "seek(-1)"),
    Binding("right", "seek(1)"),
]
