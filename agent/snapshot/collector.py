# SPDX-License-Identifier: Apache-2.0
"""Joins what the kernel counted with whose devices they are: one Snapshot.

Reads on demand, under the one lock of the agent. It remembers only what a
single reading cannot tell: since when a row stands still, what the rows of
dead devices had counted, and the last good answer of a source.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import structlog

from agent.snapshot.cilium import Applied, ClusterState
from agent.snapshot.model import (
    Device,
    DeviceId,
    Family,
    Hook,
    Lengths,
    Link,
    Reading,
    Row,
    RowKey,
    Scope,
    Source,
)
from agent.snapshot.naming import Naming
from agent.snapshot.snapshot import Coverage, DeviceRows, Recent, Snapshot

# A row is dropped when its device is gone and it stood still this long.
GRACE_SECONDS = 60.0
# Whether a device of a foreign namespace is gone nobody can ask: silence tells.
SILENCE_SECONDS = 600.0
# What these receive is seen at the device below: netif_receive_skb comes before
# the skb changes its device.
_STACKED = ("bond", "team", "vlan", "macvlan", "ipvlan")
# What happened lately is what happened in at least this time, if anybody asked
# for a snapshot before it.
RECENT_SECONDS = 30.0

_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Probes(Protocol):
    """What the collector wants of agent.kernel.probes.Probes."""

    @property
    def attached(self) -> dict[Hook, bool]:
        """Each hook that was asked for: is it attached?"""

    @property
    def capacity(self) -> int:
        """Rows that the map has room for."""

    def read(self) -> Reading:
        """All counters now."""

    def forget(self, rows: Iterable[RowKey], devices: Iterable[DeviceId]) -> None:
        """Drop rows and devices from the kernel's maps."""


class Remembered(Generic[T]):
    """A source that may fail: its last good answer, and how often it failed.

    Only OSError counts as failing; anything else is a defect of ours.
    """

    def __init__(self, name: str, read: Callable[[], T]) -> None:
        self.name = name
        self.state = Source(up=True, errors=0)
        self._read = read
        self.problem = ""  # why there was no answer this time
        self._failed = False
        self._last: T | None = None

    def get(self) -> T | None:
        """The answer now, or the last good one; OSError where there is none."""
        self.problem = ""
        try:
            self._last = self._read()
        except OSError as err:
            if not self._failed:
                _log.warning("source failed", source=self.name, error=str(err))
            self._failed = True
            self.problem = str(err)
            self.state = Source(up=False, errors=self.state.errors + 1)
            if self._last is None:
                raise
        else:
            here = self._last is not None  # None: there is no such thing here
            if here and self._failed:
                _log.info("source is back", source=self.name)
            self._failed = False
            self.state = Source(up=here, errors=self.state.errors)
        return self._last

    def amend(self, answer: T) -> None:
        """The last good answer is this one."""
        self._last = answer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node may or may not have; each answers without waiting.

    `applied`: Cilium's agent; None where there is none, OSError where it fails.
    `cluster`: the API server; None where there is none. `ip6_too_big`: the
    node's counter of that name.
    """

    applied: Callable[[], Applied | None] = lambda: None
    cluster: Callable[[], ClusterState | None] = lambda: None
    ip6_too_big: Callable[[], int] = lambda: 0
    kernel: str = ""  # its release
    naming: Naming = field(default_factory=Naming)


@dataclass(frozen=True, slots=True)
class _Past:
    """Counters as they were at a moment (monotonic seconds)."""

    at: float
    rows: dict[RowKey, Row]
    ip6_too_big: int


@dataclass(frozen=True, slots=True)
class _Still:
    """Since when (monotonic seconds) a row has this count."""

    count: int
    since: float


def _or_none(source: Remembered[T]) -> T | None:
    try:
        return source.get()
    except OSError:
        return None


class Collector:
    """Builds snapshots; safe to call from any thread."""

    def __init__(  # noqa: PLR0913  the sources, and the clocks
        self,
        probes: Probes,
        links: Callable[[], list[Link]],
        own_netns: int,
        around: Surroundings | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._probes = probes
        self._reading = Remembered("probes", probes.read)
        self._links = Remembered("links", links)
        around = around or Surroundings()
        self._applied = Remembered("cilium", around.applied)
        self._cluster = around.cluster
        self._ip6_too_big = Remembered("snmp6", around.ip6_too_big)
        self._kernel = around.kernel
        self._past: deque[_Past] = deque()
        self._now: _Past | None = None  # when the latest snapshot was taken
        self._own_netns = own_netns
        self._monotonic = monotonic
        self._wall = wall
        self._lock = threading.Lock()
        self._closed = False
        self._still: dict[RowKey, _Still] = {}
        self._retired: dict[tuple[Scope, str, Hook, Family], Lengths] = {}
        self._labels: dict[DeviceId, str] = {}
        self._naming = around.naming
        self._scopes: dict[DeviceId, Scope] = {}
        self._baseline: dict[tuple[int, Hook], Coverage] = {}

    def snapshot(self) -> Snapshot:
        """Read everything now. OSError until the first good reading."""
        with self._lock:
            return self._snapshot(None)

    def close(self) -> None:
        """Wait for who reads; who comes later gets an OSError."""
        with self._lock:
            self._closed = True

    def observe(self, seconds: float, wait: Callable[[float], object]) -> Snapshot:
        """A snapshot whose `recent` are the `seconds` from now, waited for by
        `wait` while others may read.
        """
        with self._lock:
            self._snapshot(None)
            begin = self._now
        wait(seconds)
        with self._lock:
            return self._snapshot(begin)

    def _snapshot(self, since: _Past | None) -> Snapshot:
        if self._closed:
            raise OSError("the agent is ending")
        links, reading = self._links.get(), self._reading.get()
        assert links is not None  # these two are everywhere
        assert reading is not None
        applied = _or_none(self._applied)
        cluster = self._cluster()
        sources = (self._reading, self._links, self._applied, self._ip6_too_big)
        self._naming.see(links)
        devices = self._join(reading, links)
        recent = self._recent(reading, since)
        if self._reading.state.up:  # an old reading makes everything look still
            devices = self._retire(reading, devices, links)
        return Snapshot(
            taken=self._wall(),
            edges=reading.edges,
            devices=devices,
            links=tuple(links),
            retired=dict(self._retired),
            unrecorded=reading.unrecorded,
            attached=self._probes.attached,
            sources={source.name: source.state for source in sources}
            | (cluster.sources if cluster else {}),
            coverage=self._coverage(devices, links),
            pods_received=reading.pods_received,
            pods_gone=reading.pods_gone,
            kernel=self._kernel,
            shown=frozenset(self._naming.shown),
            recent=recent,
            applied=applied,
            cluster=cluster,
            problems={
                source.name: source.problem for source in sources if source.problem
            }
            | (cluster.problems if cluster else {}),
        )

    def _recent(self, reading: Reading, since: _Past | None) -> Recent:
        """What was counted since then, or since RECENT_SECONDS ago."""
        past = self._past
        too_big = _or_none(self._ip6_too_big) or 0
        now = _Past(self._monotonic(), reading.rows, too_big)
        while len(past) > 1 and past[1].at <= now.at - RECENT_SECONDS:
            past.popleft()
        if not past or now.at - past[-1].at >= RECENT_SECONDS / 10:
            past.append(now)
        self._now = now
        first = since or past[0]
        rows = {
            key: row.lengths.since(first.rows[key].lengths)
            if key in first.rows
            else row.lengths
            for key, row in reading.rows.items()
        }
        return Recent(
            now.at - first.at,
            {key: lengths for key, lengths in rows.items() if lengths.histogram.count},
            max(0, now.ip6_too_big - first.ip6_too_big),
        )

    def _join(self, reading: Reading, links: list[Link]) -> tuple[DeviceRows, ...]:
        by_index = {link.ifindex: link for link in links}
        rows: dict[DeviceId, dict[tuple[Hook, Family], Row]] = {}
        for key, row in reading.rows.items():
            rows.setdefault(key.device, {})[key.hook, key.family] = row
        return tuple(
            self._device(at, reading.devices.get(at), by_index, its_rows)
            for at, its_rows in sorted(rows.items())
            # Whose it is, the kernel tells a moment after the first skb.
            if at in reading.devices or at.netns == self._own_netns
        )

    def _device(
        self,
        at: DeviceId,
        device: Device | None,
        links: dict[int, Link],
        rows: dict[tuple[Hook, Family], Row],
    ) -> DeviceRows:
        link = links.get(at.ifindex) if at.netns == self._own_netns else None
        name = link.name if link else device.name if device else f"ifindex:{at.ifindex}"
        scope = self._scope(at, device, links)
        label = ""
        if scope is Scope.NODE:
            label = self._labels.setdefault(at, self._naming.label(name))
        return DeviceRows(at, name, scope, label, device, link, rows)

    def _scope(
        self, at: DeviceId, device: Device | None, links: dict[int, Link]
    ) -> Scope:
        if at.netns == self._own_netns:
            return Scope.NODE
        if device is None or device.peer is None:
            return Scope.OTHER
        if device.peer.netns != self._own_netns:
            return Scope.OTHER
        facing = links.get(device.peer.ifindex)
        if facing is not None and at not in self._scopes:
            # An end of ours that has neighbours is an uplink: behind it stands
            # not a pod, but the machine around us (kind, k3d).
            self._scopes[at] = Scope.OTHER if facing.in_subnet else Scope.PODS
        # What it was first, it stays: counts never change their series.
        return self._scopes.get(at, Scope.PODS)

    def _retire(
        self,
        reading: Reading,
        devices: tuple[DeviceRows, ...],
        links: list[Link],
    ) -> tuple[DeviceRows, ...]:
        """Drop devices that are gone; what they counted stays in the sums."""
        now = self._monotonic()
        full = len(reading.rows) > self._probes.capacity // 2
        present = {link.ifindex for link in links} if self._links.state.up else None
        still = {}
        kept, gone = [], []
        for device in devices:
            silent = now
            for row in device.rows.values():
                count = row.lengths.histogram.count
                before = self._still.get(row.key)
                if before is None or before.count != count:
                    before = _Still(count, now)
                still[row.key] = before
                silent = min(silent, now - before.since)
            if silent >= self._patience(device, present, full):
                gone.append(device)
            else:
                kept.append(device)
        self._still = still
        if gone:
            self._forget(reading, gone)
        return tuple(kept)

    def _patience(
        self, device: DeviceRows, present: set[int] | None, full: bool
    ) -> float:
        """Seconds of silence after which a device counts as gone."""
        forever = float("inf")
        if device.scope is Scope.OTHER:
            return GRACE_SECONDS if full else SILENCE_SECONDS
        if present is None:
            return forever
        ours = device.id.ifindex
        if device.scope is Scope.PODS and device.device and device.device.peer:
            ours = device.device.peer.ifindex
        return forever if ours in present else GRACE_SECONDS

    def _forget(self, reading: Reading, gone: list[DeviceRows]) -> None:
        rows = [row for device in gone for row in device.rows.values()]
        dead = {row.key for row in rows}
        self._probes.forget(dead, [device.id for device in gone])
        kept = {key: row for key, row in reading.rows.items() if key not in dead}
        self._reading.amend(replace(reading, rows=kept))
        for device in gone:
            for (hook, family), row in device.rows.items():
                at = (device.scope, device.label, hook, family)
                before = self._retired.get(at)
                self._retired[at] = before.add(row.lengths) if before else row.lengths
                self._still.pop(row.key, None)
            self._scopes.pop(device.id, None)
            self._labels.pop(device.id, None)

    def _coverage(
        self, devices: tuple[DeviceRows, ...], links: list[Link]
    ) -> dict[tuple[str, str], Coverage]:
        """What we counted against what the links counted, since our first look."""
        now = {}
        names = {link.ifindex: link.name for link in links}
        counted = _framed_bytes(devices)
        for link in links:
            if not link.loopback:
                for hook, of_kernel in (
                    (Hook.NETIF_RECEIVE_SKB, link.counters.rx_bytes),
                    (Hook.NET_DEV_START_XMIT, link.counters.tx_bytes),
                ):
                    at = (link.ifindex, hook)
                    if hook is Hook.NETIF_RECEIVE_SKB and link.kind in _STACKED:
                        continue
                    now[at] = Coverage(counted.get(at, 0), of_kernel)
        # A device brings its counters along when it is moved: ours begin here.
        self._baseline = {
            at: self._baseline.get(at, first) for at, first in now.items()
        }
        found = {}
        for (ifindex, hook), covered in now.items():
            first = self._baseline[ifindex, hook]
            if covered.kernel > first.kernel and self._probes.attached.get(hook):
                direction = "rx" if hook is Hook.NETIF_RECEIVE_SKB else "tx"
                found[names[ifindex], direction] = Coverage(
                    covered.counted - first.counted, covered.kernel - first.kernel
                )
        return found


def _framed_bytes(devices: tuple[DeviceRows, ...]) -> dict[tuple[int, Hook], int]:
    """Bytes with link headers, by ifindex and hook, of devices that are ours."""
    counted: dict[tuple[int, Hook], int] = {}
    for device in devices:
        if device.link is not None:
            for (hook, _), row in device.rows.items():
                histogram = row.lengths.histogram
                at = (device.id.ifindex, hook)
                framed = histogram.bytes + device.link.header * histogram.count
                counted[at] = counted.get(at, 0) + framed
    return counted
