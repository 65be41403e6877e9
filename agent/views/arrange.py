# SPDX-License-Identifier: Apache-2.0
"""Which rows are shown, and in which order. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Self

from agent.snapshot.model import Scope
from agent.views.traffic import HOOKS, Row

Key = Callable[[Row], float | str | None]
SORTS: dict[str, Key] = {
    "name": lambda row: row.name,
    "hook": lambda row: row.hook,
    "IP": lambda row: row.family,
    "limit": lambda row: row.limit or None,
    "skb/s": lambda row: row.skbs,
    "B/s": lambda row: row.bytes,
    ">64 KiB": lambda row: row.share,
    "longest": lambda row: row.longest,
    "pkt/skb": lambda row: row.packets,
}
TEXTS = ("name", "hook", "IP")  # A first; of numbers the largest
FAMILIES = ("", "v4", "v6")
KINDS = ("", "pods", "devices")


@dataclass(frozen=True, slots=True)
class View:
    """What a user chose; "" is everything. `others`: devices of scope other one by
    one, not as sums.
    """

    sort: str = "B/s"
    backwards: bool = False
    text: str = ""
    family: str = ""
    hook: str = ""
    kind: str = ""
    others: bool = False

    def sorted_by(self, step: int) -> Self:
        """By the column `step` further to the right."""
        names = list(SORTS)
        at = (names.index(self.sort) + step) % len(names)
        return replace(self, sort=names[at], backwards=False)

    def next_family(self) -> Self:
        """Both, IPv4, IPv6, both."""
        return replace(self, family=_after(FAMILIES, self.family))

    def next_kind(self) -> Self:
        """All, pods, devices, all."""
        return replace(self, kind=_after(KINDS, self.kind))

    def next_hook(self, rows: Iterable[Row]) -> Self:
        """All hooks, then each that has rows, all again."""
        there = {row.hook for row in rows}
        hooks = ("", *(name for name in HOOKS.values() if name in there))
        return replace(self, hook=_after(hooks, self.hook))

    def has(self, row: Row) -> bool:
        """Is this row shown?"""
        if row.scope is Scope.OTHER and row.summed == self.others:
            return False
        if self.kind and (self.kind == "pods") != (row.scope is Scope.PODS):
            return False
        return (
            self.hook in ("", row.hook)
            and self.family in ("", row.family)
            and self.text.lower() in row.name.lower()
        )

    def arranged(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that are shown, in order; what has no value comes last."""
        value = SORTS[self.sort]
        found = sorted(
            filter(self.has, rows), key=lambda row: (row.name, row.hook, row.family)
        )
        known = [row for row in found if value(row) is not None]
        known.sort(
            key=value,  # type: ignore[arg-type]
            reverse=(self.sort not in TEXTS) != self.backwards,
        )
        return known + [row for row in found if value(row) is None]

    def __str__(self) -> str:
        chosen = (
            self.kind,
            self.hook and f"hook {self.hook}",
            self.family and f"IP{self.family}",
            self.text and f"/{self.text}",
        )
        only = ", ".join(filter(None, chosen))
        others = "others one by one" if self.others else ""
        return ", ".join(filter(None, (only and f"only {only}", others)))


def _after(values: tuple[str, ...], value: str) -> str:
    at = values.index(value) if value in values else -1
    return values[(at + 1) % len(values)]
