# SPDX-License-Identifier: Apache-2.0
"""Which of the node's devices stand alone in the metrics, and which are summed."""

from collections.abc import Callable, Iterable

from agent.snapshot.model import Link

OTHERS = "(others)"


class Naming:
    """Gives a device its label: its name, or (others).

    The first `most` names that are `wanted`, by ifindex, stand alone, and do so
    for ever: a count that changed its series would look like a burst in the one
    and like a restart in the other.
    """

    def __init__(
        self, wanted: Callable[[str], bool] = lambda _: True, most: int = 8
    ) -> None:
        self._wanted = wanted
        self._most = most
        self.shown: set[str] = set()

    def see(self, links: Iterable[Link]) -> None:
        """Take in devices that are there now."""
        for link in sorted(links, key=lambda link: link.ifindex):
            if len(self.shown) >= self._most:
                return
            if not link.loopback and self._wanted(link.name):
                self.shown.add(link.name)

    def label(self, name: str) -> str:
        """The label of a device of this name."""
        return name if name in self.shown else OTHERS
