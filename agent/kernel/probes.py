# SPDX-License-Identifier: Apache-2.0
"""The programs while they run: read their maps, and drop rows of the dead."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from agent.kernel import libbpf
from agent.kernel.contract import Contract, bpf_directory
from agent.kernel.loader import Loaded, Loader
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import (
    Device,
    DeviceId,
    Family,
    Hook,
    Lengths,
    Reading,
    Row,
    RowKey,
)

_FIRST_ROOM = 512  # rows that a first read has room for; it grows as needed


def _dtype(description: Any) -> "np.dtype[Any]":
    """Numpy's dtype from the loader's JSON: a dict, a pair or a plain format."""
    spec: Any = description
    if isinstance(description, dict):
        formats = [_dtype(inner) for inner in description["formats"]]
        spec = description | {"formats": formats}
    elif isinstance(description, list):
        inner, length = description
        spec = (_dtype(inner), (length,))
    dtype: np.dtype[Any] = np.dtype(spec)
    return dtype


def _text(field: bytes) -> str:
    """A C string: what a longer name left behind its NUL is not part of it."""
    return field.split(b"\0", 1)[0].decode(errors="replace")


class Table:
    """A hash map whose bytes numpy understands.

    `shares` is how many values the kernel keeps of each key: the possible CPUs
    for a per-CPU map, 1 otherwise.
    """

    def __init__(self, fd: int, key: Any, leaf: Any, shares: int) -> None:
        self._fd = fd
        self._key = _dtype(key)
        self._leaf = _dtype(leaf)
        self._shares = shares
        self._room = _FIRST_ROOM

    @property
    def dtypes(self) -> "tuple[np.dtype[Any], np.dtype[Any]]":
        """Of a key, and of one share of a leaf."""
        return self._key, self._leaf

    def read(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Keys, shape (n,), and leaves, shape (n, shares)."""
        keys, leaves, count = libbpf.lookup_all(
            self._fd,
            self._key.itemsize,
            self._leaf.itemsize * self._shares,
            self._room,
        )
        self._room = max(self._room, count + count // 4)
        return (
            np.frombuffer(keys, self._key),
            np.frombuffer(leaves, self._leaf).reshape(count, self._shares),
        )

    def remove(self, **key: int) -> None:
        """Delete a key, given by the fields of the C struct."""
        packed = np.zeros(1, self._key)
        for name, value in key.items():
            packed[name] = value
        libbpf.remove(self._fd, packed.tobytes())


def rows_of(
    keys: npt.NDArray[Any], leaves: npt.NDArray[Any], contract: Contract
) -> dict[RowKey, Row]:
    """Rows from the bytes of the `lengths` map, CPUs summed.

    `keys` of shape (n,), `leaves` (n, CPUs). Sums are exact: uint64 throughout.
    The limit is that of the CPU which saw the latest skb.
    """
    hooks = {number: Hook(name) for number, name in contract.hooks.items()}
    families = {number: Family(name) for number, name in contract.families.items()}
    slots = leaves["slots"].sum(axis=1).tolist()
    sums = {
        name: leaves[name].sum(axis=1).tolist()
        for name in ("bytes", "big_bytes", "segments")
    }
    longest = leaves["longest"].max(axis=1).tolist()
    latest = leaves["seen"].argmax(axis=1)
    limit = leaves["limit"][np.arange(len(leaves)), latest].tolist()
    netns, ifindex = keys["netns"].tolist(), keys["ifindex"].tolist()
    hook, family = keys["hook"].tolist(), keys["family"].tolist()
    rows = {}
    for i in range(len(keys)):
        key = RowKey(
            DeviceId(netns[i], ifindex[i]), hooks[hook[i]], families[family[i]]
        )
        histogram = Histogram(
            contract.edges, tuple(slots[i]), sums["bytes"][i], sums["big_bytes"][i]
        )
        lengths = Lengths(histogram, sums["segments"][i], longest[i])
        rows[key] = Row(key, lengths, limit[i])
    return rows


def _devices_of(
    keys: npt.NDArray[Any], leaves: npt.NDArray[Any]
) -> dict[DeviceId, Device]:
    devices = {}
    for key, leaf in zip(keys, leaves[:, 0], strict=True):
        at = DeviceId(int(key["netns"]), int(key["ifindex"]))
        peer = leaf["peer"]
        devices[at] = Device(
            id=at,
            netns_inode=int(leaf["netns_inode"]),
            name=_text(bytes(leaf["name"])),
            kind=_text(bytes(leaf["kind"])),
            mac=":".join(f"{byte:02x}" for byte in leaf["mac"]),
            peer=(
                DeviceId(int(peer["netns"]), int(peer["ifindex"]))
                if peer["ifindex"]
                else None
            ),
        )
    return devices


class Probes:
    """The attached programs. Closing them detaches; the kernel frees the rest."""

    def __init__(self, loaded: Loaded, contract: Contract) -> None:
        self._loaded = loaded
        self._contract = contract
        self._cpus = libbpf.possible_cpus()
        self._lengths = Table(
            loaded.maps["lengths"], *loaded.formats["lengths"], shares=self._cpus
        )
        self._devices = Table(
            loaded.maps["devices"], *loaded.formats["devices"], shares=1
        )

    @classmethod
    def load(cls, hooks: Sequence[Hook]) -> Self:
        """Compile, load and attach now; KernelError where that cannot be."""
        return cls.from_loader(Loader(hooks))

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
        rows = rows_of(*self._lengths.read(), self._contract)
        return Reading(
            self._contract.edges,
            rows,
            _devices_of(*self._devices.read()),
            self._unrecorded(),
        )

    def forget(self, rows: Iterable[RowKey], devices: Iterable[DeviceId]) -> None:
        """Drop rows, and who these devices were, from the kernel's maps.

        What is counted between the reading and this call is lost: forget only
        rows that have been still for a while.
        """
        hooks = {name: number for number, name in self._contract.hooks.items()}
        families = {name: number for number, name in self._contract.families.items()}
        for key in rows:
            self._lengths.remove(
                netns=key.device.netns,
                ifindex=key.device.ifindex,
                hook=hooks[key.hook],
                family=families[key.family],
            )
        for device in devices:
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
