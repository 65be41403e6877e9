# SPDX-License-Identifier: Apache-2.0
"""Reads what the attached programs have counted.

A row stands in two maps, whose sum it is: in `lengths`, and with its latest
counts on the fast lane of some CPUs, `recent` (leaf_of() in bpf/skb_length.c).
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from agent.kernel import libbpf
from agent.kernel.contract import Contract, bpf_directory
from agent.kernel.loader import Loaded, Loader
from agent.kernel.tables import Table, collapse, devices_of, merge, row_keys, rows_of
from agent.snapshot.model import DeviceId, Hook, Lengths, Reading, Row, RowKey

_MOVING = 0  # as in bpf/skb_length.c; an empty slot has no ifindex either
_TRIES = 3


def _moving(recent: npt.NDArray[Any]) -> bool:
    keys = recent["key"]
    return bool(((keys["netns"] == _MOVING) & (keys["ifindex"] != 0)).any())


class Probes:
    """The attached programs. Closing them detaches; the kernel frees the rest."""

    def __init__(self, loaded: Loaded, contract: Contract) -> None:
        self._loaded = loaded
        self._contract = contract
        self._hooks = {name: number for number, name in contract.hooks.items()}
        self._families = {name: number for number, name in contract.families.items()}
        self._cpus = libbpf.possible_cpus()
        self._lengths = Table(
            loaded.maps["lengths"], *loaded.formats["lengths"], shares=self._cpus
        )
        self._recent = Table(
            loaded.maps["recent"], *loaded.formats["recent"], shares=self._cpus
        )
        self._devices = Table(
            loaded.maps["devices"], *loaded.formats["devices"], shares=1
        )
        # What was forgotten while a part of it was on the fast lane, where
        # only the kernel can delete: that part is taken off until it is gone.
        self._forgotten: dict[RowKey, Lengths] = {}
        # The last reading, nothing taken off.
        self._settled: dict[RowKey, Row] = {}
        self._fast: npt.NDArray[Any] = np.zeros(0, self._recent.dtypes[1])

    @classmethod
    def load(cls, hooks: Sequence[Hook], **defines: int) -> Self:
        """Compile, load and attach now; KernelError where that cannot be."""
        return cls.from_loader(Loader(hooks, **defines))

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
    def capacity(self) -> int:
        """Rows that the map has room for."""
        return self._loaded.max_rows

    @property
    def attached(self) -> dict[Hook, bool]:
        """Each hook that was asked for: is it attached?"""
        return {Hook(hook): True for hook in self._loaded.links} | {
            Hook(hook): False for hook in self._loaded.failed
        }

    @property
    def failures(self) -> dict[Hook, str]:
        """Why a hook is not attached."""
        return {Hook(hook): why for hook, why in self._loaded.failed.items()}

    @property
    def dtypes(self) -> "tuple[np.dtype[Any], np.dtype[Any]]":
        """Key and leaf of the `lengths` map, as the kernel lays them out."""
        return self._lengths.dtypes

    def read(self) -> Reading:
        """All counters now; OSError where a map cannot be read."""
        rows, fast = self._rows()
        self._settled, self._fast = dict(rows), fast
        if self._forgotten:
            self._take_off_forgotten(rows)
        return Reading(
            self._contract.edges,
            rows,
            devices_of(*self._devices.read()),
            self._unrecorded(),
        )

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
                left = self._settled.get(key)
            if left is not None:
                self._forgotten[key] = left.lengths
        for device in devices:
            self._delete_device(device)

    def _fast_parts(self) -> dict[RowKey, Row]:
        """What of each row stood on the fast lane when it was last read."""
        return rows_of(*merge(self._fast["key"], self._fast["leaf"]), self._contract)

    def _rows(self) -> tuple[dict[RowKey, Row], npt.NDArray[Any]]:
        """Rows, and what stands on the fast lane: keys and leaves of shape (n,).

        A row that moved from the one map to the other meanwhile would be counted
        twice or not at all: it stays as it was read before.
        """
        for _ in range(_TRIES):
            _, fast = self._recent.read()
            keys, leaves = self._lengths.read()
            _, after = self._recent.read()
            moved = fast["key"] != after["key"]
            if not moved.any() and not _moving(fast):
                break
        used = fast["key"]["netns"] != _MOVING
        total = merge(
            np.concatenate((keys, fast["key"][used])),
            np.concatenate((collapse(leaves), fast["leaf"][used])),
        )
        rows = rows_of(*total, self._contract)
        if _moving(fast):  # whose row it is cannot be told
            raise OSError("rows move while they are read")
        for copy in (fast, after):
            for key in row_keys(
                copy["key"][moved & (copy["key"]["netns"] != _MOVING)], self._contract
            ):
                if key in self._settled:
                    rows[key] = self._settled[key]
                else:
                    rows.pop(key, None)
        return rows, fast[used]

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
        self._lengths.remove(
            netns=key.device.netns,
            ifindex=key.device.ifindex,
            hook=self._hooks[key.hook],
            family=self._families[key.family],
        )

    def _delete_device(self, device: DeviceId) -> None:
        if not any(key.device == device for key in self._forgotten):
            with contextlib.suppress(OSError):
                self._devices.remove(netns=device.netns, ifindex=device.ifindex)

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
