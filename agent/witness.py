# SPDX-License-Identifier: Apache-2.0
"""What the agent of this node counted for our own network namespace meanwhile."""

from collections.abc import Callable
from dataclasses import replace

from agent import inquiry
from agent.errors import AgentError
from agent.snapshot.model import Hook, Lengths
from agent.snapshot.sample import Line, Sample

_LEAST_SHARE = 0.5  # of what must have passed; else this is not our traffic


class Witness:
    """Asks the agent at `url`. What keeps it from answering is told once, by
    `tell`, and is no error: there is a result, but no histogram.

    `netns` is the inode of our network namespace.
    """

    def __init__(self, url: str, netns: int, tell: Callable[[str], None]) -> None:
        self.url = url
        self._netns = netns
        self._tell = tell
        self._told: set[str] = set()
        self._answers = True

    def sample(self) -> Sample | None:
        """What it counted so far; None where it does not answer, or once did not."""
        if not self._answers:
            return None
        try:
            return Sample.of(inquiry.fetch(self.url, None))
        except AgentError as err:
            why = err.message
        except OSError as err:
            why = f"no agent answers at {self.url} ({inquiry.why(err)})"
        except ValueError as err:
            why = f"the agent at {self.url} did not answer as ours does: {err}"
        self._answers = False
        self.say(f"{why}: no histograms")
        return None

    def passed(
        self, before: Sample, after: Sample, family: str, sent: float, received: float
    ) -> tuple[Line | None, Line | None]:
        """What our busiest device sent, and received, of a family between two
        samples. One device, not all: a packet passes several where they are stacked.

        About so many bytes did pass: where the agent saw much less it saw others'
        traffic, or only some of ours, and the answer is None. Of what was sent that
        is told; what a pod receives nothing names under eBPF host routing.
        """
        if before.started != after.started:
            self.say(
                f"the agent at {self.url} was started anew in a run: that run has no "
                "histogram"
            )
            return None, None
        out = self._busiest(before, after, Hook.NET_DEV_START_XMIT, family)
        into = self._busiest(before, after, Hook.NETIF_RECEIVE_SKB, family)
        if out is None or _bytes(out) < _LEAST_SHARE * sent:
            self.say(
                f"the agent at {self.url} saw {_bytes(out) if out else 0:,} of "
                f"{sent:,.0f} bytes leave: no histogram of {family}; is it the agent "
                "of this node, and the server not on this machine's loopback?"
            )
            out = None
        if into is None or _bytes(into) < _LEAST_SHARE * received:
            into = None
        return out, into

    def _busiest(
        self, before: Sample, after: Sample, hook: Hook, family: str
    ) -> Line | None:
        lines = [
            replace(line, lengths=_longest(line.lengths, before.lines.get(key)))
            for key, line in after.since(before).lines.items()
            if line.netns == self._netns and (key.hook, key.family) == (hook, family)
        ]
        return max(lines, key=_bytes, default=None)

    def say(self, text: str) -> None:
        """Tell it, unless it was told before."""
        if text not in self._told:
            self._told.add(text)
            self._tell(text)


def _bytes(line: Line) -> int:
    return line.lengths.histogram.bytes


def _longest(new: Lengths, then: Line | None) -> Lengths:
    """With the longest of what is new: exact where it grew; else it lies in the
    highest slot that was used, whose upper edge stands for it.
    """
    histogram = new.histogram
    if then is None or new.longest > then.lengths.longest or not histogram.count:
        return new
    slots, edges = histogram.slots, histogram.edges
    highest = max(slot for slot, count in enumerate(slots) if count)
    edge = edges[highest] if highest < len(edges) else new.longest
    return replace(new, longest=min(edge, new.longest))
