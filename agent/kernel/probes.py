# SPDX-License-Identifier: Apache-2.0
"""Reads what the attached programs have counted.

A row stands in two maps, whose sum it is: in `lengths`, and with its latest
counts on the fast lane of some CPUs, `recent` (leaf_of() in bpf/skb_length.c).
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from agent.errors import KernelError
from agent.kernel import libbpf
from agent.kernel.contract import Contract, bpf_directory
from agent.kernel.loader import DEVICE_MAPS, Loaded, Loader
from agent.kernel.pods import MAX_PODS, Addresses, Received
from agent.kernel.starting import stages
from agent.kernel.tables import (
    Table,
    are_pods,
    devices_of,
    merge,
    pod_keys,
    pods_of,
    row_keys,
    rows_of,
)
from agent.snapshot.model import (
    Device,
    DeviceId,
    Family,
    Hook,
    Lengths,
    MapEntries,
    Reading,
    Row,
    RowKey,
)

_MOVING = 0  # as in bpf/skb_length.c; an empty slot has no ifindex either
_TRIES = 3


def _moving(recent: npt.NDArray[Any]) -> bool:
    keys = recent["key"]
    return bool(((keys["netns"] == _MOVING) & (keys["ifindex"] != 0)).any())


K = TypeVar("K")
V = TypeVar("V")


def _as_before(key: K, now: dict[K, V], before: dict[K, V]) -> None:
    now.pop(key, None)
    if key in before:
        now[key] = before[key]


class _Counted(NamedTuple):
    """One look at the maps; keys that stand on the fast lane beside it. `entries`:
    how many the map `lengths` has.
    """

    rows: dict[RowKey, Row]
    pods: dict[tuple[int, Family], Lengths]
    fast: npt.NDArray[Any]
    entries: int


class Probes:
    """The attached programs. Closing them detaches; the kernel frees the rest."""

    def __init__(self, loaded: Loaded, contract: Contract) -> None:
        self._loaded = loaded
        self._contract = contract
        hooks = contract.hooks | contract.pseudo_hooks
        self._hooks = {name: number for number, name in hooks.items()}
        self._families = {name: number for number, name in contract.families.items()}
        self._cpus = libbpf.possible_cpus()
        self._lengths = Table(
            loaded.maps["lengths"], *loaded.formats["lengths"], shares=self._cpus
        )
        self._recent = Table(
            loaded.maps["recent"], *loaded.formats["recent"], shares=self._cpus
        )
        self._devices = {
            name: Table(loaded.maps[name], *loaded.formats[name], shares=1)
            for name in DEVICE_MAPS
        }
        # Foreign devices that had no row when they were last read.
        self._without_rows: set[DeviceId] = set()
        # What was forgotten while a part of it was on the fast lane, where
        # only the kernel can delete: that part is taken off until it is gone.
        self._forgotten: dict[RowKey, Lengths] = {}
        # The last look, nothing taken off.
        self._last = _Counted({}, {}, np.zeros(0, self._recent.dtypes[1]), 0)
        self._own_netns = loaded.pods_of
        self._received = Received()
        self._pods_lock = Lock()
        self._addresses: Addresses | None = None
        if "pod_addresses" in loaded.maps:
            self._addresses = Addresses(loaded.maps["pod_addresses"])

    @classmethod
    def load(
        cls,
        hooks: Sequence[Hook],
        *,
        own_netns: int | None = None,
        pods_of: int | None = None,
        **defines: int,
    ) -> Self:
        """Compile, load and attach now; KernelError where that cannot be.

        `own_netns`: the net_cookie of the agent's namespace, to limit the rows of
        devices that are neither there nor its pods'; `pods_of`: the same, and to
        count what each pod receives (set_pod_addresses).
        """
        with contextlib.closing(
            Loader(hooks, own_netns=own_netns, pods_of=pods_of, **defines)
        ) as loader:
            loader.start()
            return cls.from_loader(loader)

    @classmethod
    def from_loader(cls, loader: Loader) -> Self:
        """Take over what a loader, started earlier, has loaded."""
        return cls(loader.finish(), Contract.read(bpf_directory()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loaded.close()

    @property
    def edges(self) -> tuple[int, ...]:
        """Upper edges of the histograms, in bytes."""
        return self._contract.edges

    @property
    def attached(self) -> dict[Hook, bool]:
        """Each hook that was asked for: is it attached?"""
        return {Hook(hook): True for hook in self._loaded.links} | {
            Hook(hook): False for hook in self._loaded.failed
        }

    @property
    def failures(self) -> dict[Hook, KernelError]:
        """Why a hook is not attached."""
        return {Hook(hook): why for hook, why in self._loaded.failed.items()}

    @property
    def start_stages(self) -> dict[str, float]:
        """What the agent's start was made of, up to now, in seconds."""
        return stages(self._loaded.begun, self._loaded.marks)

    @property
    def programs(self) -> dict[Hook, int]:
        """The fd of each attached hook's program."""
        return {Hook(hook): fd for hook, fd in self._loaded.programs.items()}

    @property
    def dtypes(self) -> "tuple[np.dtype[Any], np.dtype[Any]]":
        """Key and leaf of the `lengths` map, as the kernel lays them out."""
        return self._lengths.dtypes

    def set_pod_addresses(
        self, addresses: Mapping[str, int], most: int = MAX_PODS
    ) -> int:
        """Say which pods there are: IP address to ifindex of the host side.

        The first `most` pods, and for as long as they stay, have rows of their
        own, all others one together. Those that are not named any more are
        forgotten. How many addresses found no room in the map. From any thread.
        """
        if self._addresses is None:
            msg = "the probes were loaded without pods_of"
            raise ValueError(msg)
        with self._pods_lock:
            return self._addresses.set(addresses, most)

    def read(self) -> Reading:
        """All counters now; OSError where a map cannot be read."""
        counted = self._counted()
        self._last = counted._replace(rows=dict(counted.rows))
        rows, pods = counted.rows, counted.pods
        if self._forgotten:
            self._take_off_forgotten(rows)
        if self._addresses:
            with self._pods_lock:
                pods = self._forget_pods(counted)
        devices, used = self._read_devices(rows)
        used["lengths"] = counted.entries
        return Reading(
            self._contract.edges,
            rows,
            devices,
            self._unrecorded(),
            pods,
            {
                name: MapEntries(n, self._loaded.limits[name])
                for name, n in used.items()
            },
        )

    def _read_devices(
        self, rows: Iterable[RowKey]
    ) -> tuple[dict[DeviceId, Device], dict[str, int]]:
        """Who the devices are, and how many of them each map has.

        A foreign device is admitted before its first row is made. Where that failed,
        it would keep the place of another for ever: it is deleted here.
        """
        found = {
            name: devices_of(*table.read()) for name, table in self._devices.items()
        }
        foreign = {
            device
            for name in DEVICE_MAPS
            if name != "devices"
            for device in found[name]
        }
        without_rows = foreign - {key.device for key in rows}
        for device in without_rows & self._without_rows:
            self._delete_device(device)
        self._without_rows = without_rows
        devices: dict[DeviceId, Device] = {}
        for name in reversed(DEVICE_MAPS):  # one that became ours: as it was then
            devices |= found[name]
        return devices, {name: len(each) for name, each in found.items()}

    def forget(self, rows: Iterable[RowKey], devices: Iterable[DeviceId]) -> None:
        """Drop rows, and who these devices were, from the kernel's maps.

        What is counted between the last reading and this call is lost: forget
        only rows that have been still for a while. Never fails: what could not
        be deleted is taken off every later reading.
        """
        parts = self._fast_parts()
        for key in rows:
            left = parts.get(key)
            try:
                self._delete(key)
            except OSError:
                left = self._last.rows.get(key)
            if left is not None:
                self._forgotten[key] = left.lengths
        for device in devices:
            self._delete_device(device)

    def _fast_parts(self) -> dict[RowKey, Row]:
        """What of each row stood on the fast lane when it was last read."""
        keys, leaves = self._last.fast["key"], self._last.fast["leaf"]
        mine = ~are_pods(keys, self._contract)
        return rows_of(*merge(keys[mine], leaves[mine]), self._contract)

    def _counted(self) -> _Counted:
        """Rows of devices and of pods, and what stands on the fast lane: keys and
        leaves of shape (n,).

        A row that moved from the one map to the other meanwhile would be counted
        twice or not at all: it stays as it was read before.
        """
        for _ in range(_TRIES):
            _, fast = self._recent.read()
            keys, leaves = self._lengths.totals()
            entries = len(keys)
            after = self._recent.fields("key")
            moved = fast["key"] != after
            if not moved.any() and not _moving(fast):
                break
        if _moving(fast):  # whose row it is cannot be told
            raise OSError("rows move while they are read")
        used = fast[fast["key"]["netns"] != _MOVING]
        keys, leaves = merge(
            np.concatenate((keys, used["key"])),
            np.concatenate((leaves, used["leaf"])),
        )
        of_pods = are_pods(keys, self._contract)
        rows = rows_of(keys[~of_pods], leaves[~of_pods], self._contract)
        pods = pods_of(keys[of_pods], leaves[of_pods], self._contract)
        restless = np.concatenate((fast["key"][moved], after[moved]))
        restless = restless[restless["netns"] != _MOVING]
        of_pods = are_pods(restless, self._contract)
        for key in row_keys(restless[~of_pods], self._contract):
            _as_before(key, rows, self._last.rows)
        for pod in pod_keys(restless[of_pods], self._contract):
            _as_before(pod, pods, self._last.pods)
        return _Counted(rows, pods, used, entries)

    def _forget_pods(self, counted: _Counted) -> dict[tuple[int, Family], Lengths]:
        """What living pods received; rows of the dead are deleted."""
        assert self._addresses is not None
        alive, dead = self._received.split(counted.pods, self._addresses.rows)
        if dead:
            keys, leaves = counted.fast["key"], counted.fast["leaf"]
            theirs = are_pods(keys, self._contract)
            left = pods_of(*merge(keys[theirs], leaves[theirs]), self._contract)
            for key in dead:
                ifindex, family = key
                self._remove(self._own_netns or 0, ifindex, "pod_receive", family)
                self._received.deleted(key, left.get(key))
        return alive

    def _take_off_forgotten(self, rows: dict[RowKey, Row]) -> None:
        fast = self._fast_parts()
        for key, before in list(self._forgotten.items()):
            row = rows.get(key)
            after = row.lengths.since(before) if row else None
            if row and after and after.histogram.count:  # it was only silent
                rows[key] = replace(row, lengths=after)
                continue
            rows.pop(key, None)
            if key not in fast:
                with contextlib.suppress(OSError):
                    self._delete(key)
                    del self._forgotten[key]
                    if not any(key.device == other.device for other in rows):
                        self._delete_device(key.device)

    def _delete(self, key: RowKey) -> None:
        self._remove(key.device.netns, key.device.ifindex, key.hook, key.family)

    def _remove(self, netns: int, ifindex: int, hook: str, family: str) -> None:
        self._lengths.remove(
            netns=netns,
            ifindex=ifindex,
            hook=self._hooks[hook],
            family=self._families[family],
        )

    def _delete_device(self, device: DeviceId) -> None:
        """A foreign device makes room for another at once; one of ours stays known
        while a part of its rows stands on the fast lane.
        """
        kept = any(key.device == device for key in self._forgotten)
        for name, table in self._devices.items():
            if not kept or name != "devices":
                with contextlib.suppress(OSError):
                    table.remove(netns=device.netns, ifindex=device.ifindex)

    def _unrecorded(self) -> dict[str, int]:
        counts = {}
        for number, reason in self._contract.reasons.items():
            value = libbpf.lookup(
                self._loaded.maps["unrecorded"],
                number.to_bytes(4, "little"),
                8 * self._cpus,
            )
            counts[reason] = int(np.frombuffer(value, "u8").sum())
        counts["recursion"] = sum(
            libbpf.program_info(fd).recursion_misses
            for fd in self._loaded.programs.values()
        )
        return counts
