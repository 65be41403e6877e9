# SPDX-License-Identifier: Apache-2.0
"""Joins what the kernel counted with whose devices they are: one Snapshot.

Reads on demand, under the one lock of the agent. It remembers only what a
single reading cannot tell: since when a row stands still or nobody knows whose
it is, what the rows of dead devices had counted, and the last good answer of a
source.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.snapshot.coverage import Covered
from agent.snapshot.lately import Lately, Moment
from agent.snapshot.model import (
    SHARED_DEVICE,
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
)
from agent.snapshot.snapshot import Coverage, DeviceRows, Snapshot
from agent.snapshot.sources import (
    Changes,
    Probes,
    Remembered,
    Surroundings,
    Told,
    required,
)

# A row is dropped when its device is gone and it stood still this long.
GRACE_SECONDS = 60.0
# Whether a device of a foreign namespace is gone nobody can ask: silence tells.
SILENCE_SECONDS = 600.0
# A device that the kernel has not introduced after this time it never will.
UNKNOWN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Still:
    """Since when (monotonic seconds) a row has this count."""

    count: int
    since: float


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
        self._reading = Remembered("probes", probes.read, wall)
        self._links = Remembered("links", links, wall)
        around = around or Surroundings()
        self._applied = around.applied
        self._runtime = Remembered("cilium_runtime", around.runtime, wall)
        self._cilium_left = around.cilium_left
        self._stored_endpoints = around.stored_endpoints
        self._cluster = around.cluster
        self._ip6_too_big = Remembered("snmp6", around.ip6_too_big, wall)
        self._changes = Changes()
        self._node, self._kernel = around.node, around.kernel
        self._lately = Lately()
        self._covered = Covered()
        self._coverage: dict[tuple[str, str], Coverage] = {}
        self._own_netns = own_netns
        self._monotonic = monotonic
        self._wall = wall
        self._started, self._born = wall(), monotonic()
        self._read_at = self._born
        self._lock = threading.Lock()
        self._closed = False
        self._still: dict[RowKey, _Still] = {}
        self._retired: dict[tuple[Scope, str, Hook, Family], Lengths] = {}
        self._labels: dict[DeviceId, str] = {}
        self._naming = around.naming
        self._scopes: dict[DeviceId, Scope] = {}
        self._unknown: dict[DeviceId, float] = {}  # since when (monotonic seconds)

    def snapshot(self) -> Snapshot:
        """Read everything now. OSError until the first good reading."""
        with self._lock:
            return self._snapshot(None)

    def close(self) -> None:
        """Wait for who reads; who comes later gets an OSError."""
        with self._lock:
            self._closed = True

    def observe(self, seconds: float, wait: Callable[[float], object]) -> Snapshot:
        """A snapshot whose `recent` are the `seconds` from now, while others may
        read. `wait` waits, and returns something true to say: no longer.
        """
        with self._lock:
            begin = self._moment(self._read())
        if wait(seconds):
            raise OSError("the agent is ending")
        with self._lock:
            return self._snapshot(begin)

    def _read(self) -> Reading:
        if self._closed:
            raise OSError("the agent is ending")
        told = self._reading.read()
        if told.state.up:
            self._read_at = self._monotonic()
        return required(told)

    def _moment(self, reading: Reading) -> Moment:
        too_big = self._ip6_too_big.read().answer
        return Moment(self._monotonic(), reading.rows, too_big, reading.unrecorded)

    def _snapshot(self, since: Moment | None) -> Snapshot:
        # In this order: a device that has counted has its link in the list.
        reading, links = self._read(), required(self._links.read())
        applied, runtime = self._applied(), self._runtime.read()
        cluster = self._cluster()
        self._naming.see(links)
        devices = self._join(reading, links)
        recent = self._lately.recent(self._moment(reading), since)
        if self._reading.last.state.up:  # an old one makes everything look still
            devices = self._retire(reading, devices, links)
        if self._reading.last.state.up and self._links.last.state.up:
            # Of one moment: what only one of them counted would be held against us.
            self._coverage = self._covered.since_first(
                devices, links, self._probes.attached
            )
        own = (self._reading, self._links, self._ip6_too_big, self._runtime)
        sources: dict[str, Told[object]] = {source.name: source.last for source in own}
        sources["cilium"] = applied
        for name, told in sources.items():
            self._changes.see(name, told)
        return Snapshot(
            taken=self._wall(),
            started=self._started,
            uptime=self._read_at - self._born,
            edges=reading.edges,
            devices=devices,
            links=tuple(links),
            retired=dict(self._retired),
            unrecorded=reading.unrecorded,
            attached=self._probes.attached,
            sources={name: told.state for name, told in sources.items()}
            | (cluster.sources if cluster else {}),
            coverage=dict(self._coverage),
            pods_received=reading.pods_received,
            maps=reading.maps,
            node=self._node,
            kernel=self._kernel,
            shown=frozenset(self._naming.shown),
            recent=recent,
            applied=applied.answer,
            runtime=runtime.answer,
            cilium_left=self._cilium_left(),
            stored_endpoints=()
            if applied.answer is not None
            else self._stored_endpoints(),
            cluster=cluster,
            problems={
                name: told.problem for name, told in sources.items() if told.problem
            }
            | (cluster.problems if cluster else {}),
        )

    def _join(self, reading: Reading, links: list[Link]) -> tuple[DeviceRows, ...]:
        by_index = {link.ifindex: link for link in links}
        rows: dict[DeviceId, dict[tuple[Hook, Family], Row]] = {}
        for key, row in reading.rows.items():
            rows.setdefault(key.device, {})[key.hook, key.family] = row
        # Whose it is, the kernel tells a moment after the first skb, and not again
        # of one that woke while it was forgotten: its row is there already.
        self._unknown = {
            at: self._unknown.get(at, self._read_at)
            for at in rows
            if at not in reading.devices
            and at.netns != self._own_netns
            and at != SHARED_DEVICE
        }
        return tuple(
            self._device(at, reading.devices.get(at), by_index, its_rows)
            for at, its_rows in sorted(rows.items())
            if self._read_at - self._unknown.get(at, -math.inf) >= UNKNOWN_SECONDS
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
        if at == SHARED_DEVICE:
            name = "(many devices)"
        scope = self._scope(at, device, links)
        label = ""
        if scope is Scope.NODE:
            label = self._labels.setdefault(at, self._naming.label(name))
        if scope is Scope.PODS and device and not self._faces_us(device):
            device = replace(device, peer=None)  # its ifindex may be another pod's here
        return DeviceRows(at, name, scope, label, device, link, rows)

    def _scope(
        self, at: DeviceId, device: Device | None, links: dict[int, Link]
    ) -> Scope:
        if at.netns == self._own_netns:
            return Scope.NODE
        # What it was first, it stays, wherever it or its peer is moved: counts
        # never change their series.
        if at not in self._scopes:
            self._scopes[at] = self._scope_now(device, links)
        return self._scopes[at]

    def _scope_now(self, device: Device | None, links: dict[int, Link]) -> Scope:
        if device is None or device.peer is None or not self._faces_us(device):
            return Scope.OTHER
        facing = links.get(device.peer.ifindex)
        # An end of ours that has neighbours is an uplink: behind it stands not a
        # pod, but the machine around us (kind, k3d).
        uplink = facing is not None and facing.in_subnet
        return Scope.OTHER if uplink else Scope.PODS

    def _faces_us(self, device: Device) -> bool:
        return device.peer is not None and device.peer.netns == self._own_netns

    def _retire(
        self,
        reading: Reading,
        devices: tuple[DeviceRows, ...],
        links: list[Link],
    ) -> tuple[DeviceRows, ...]:
        """Drop devices that are gone; what they counted stays in the sums."""
        now = self._monotonic()
        full = any(map_.used > map_.limit // 2 for map_ in reading.maps.values())
        up = self._links.last.state.up
        present = {link.ifindex for link in links} if up else None
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
        forever = math.inf
        if device.id == SHARED_DEVICE:
            return forever
        ours = device.id.ifindex
        if device.scope is not Scope.NODE:
            peer = device.device.peer if device.device else None
            if device.scope is Scope.OTHER or peer is None:
                return GRACE_SECONDS if full else SILENCE_SECONDS
            ours = peer.ifindex
        if present is None:
            return forever
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
