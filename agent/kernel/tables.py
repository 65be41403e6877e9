# SPDX-License-Identifier: Apache-2.0
"""The bytes of our maps as numpy arrays, and those as rows.

Sums are exact: uint64 throughout, as in the kernel.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.kernel import libbpf
from agent.kernel.contract import Contract
from agent.snapshot.histogram import Histogram
from agent.snapshot.model import (
    Device,
    DeviceId,
    Family,
    Hook,
    Lengths,
    Row,
    RowKey,
)

_ROOM = 256  # rows that are read at a time: 3 MB on 64 CPUs


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

    @property
    def dtypes(self) -> "tuple[np.dtype[Any], np.dtype[Any]]":
        """Of a key, and of one share of a leaf."""
        return self._key, self._leaf

    def read(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Keys, shape (n,), and leaves, shape (n, shares)."""
        return self._joined(lambda leaves: leaves.copy())

    def fields(self, name: str) -> npt.NDArray[Any]:
        """One field of every leaf, shape (n, shares)."""
        return self._joined(lambda leaves: leaves[name].copy())[1]

    def totals(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Keys and the sums of their leaves over all CPUs, both of shape (n,); the
        shares of all rows never stand in memory together.
        """
        return self._joined(collapse)

    def _joined(
        self, of: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        keys, leaves = [], []
        size = self._leaf.itemsize * self._shares
        for key, leaf in libbpf.batches(self._fd, self._key.itemsize, size, _ROOM):
            keys.append(np.frombuffer(key, self._key).copy())
            leaves.append(of(np.frombuffer(leaf, self._leaf).reshape(-1, self._shares)))
        if len(keys) == 1:  # nothing to join: it would be copied once more
            return keys[0], leaves[0]
        return np.concatenate(keys), np.concatenate(leaves)

    def remove(self, **key: int) -> None:
        """Delete a key, given by the fields of the C struct."""
        packed = np.zeros(1, self._key)
        for name, value in key.items():
            packed[name] = value
        libbpf.remove(self._fd, packed.tobytes())


def collapse(leaves: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One leaf a row, shape (n,), from the shares of all CPUs, shape (n, CPUs).

    The limit is that of the CPU which saw the latest skb.
    """
    total = np.zeros(len(leaves), leaves.dtype)
    for name in ("slots", "bytes", "big_bytes", "segments"):
        total[name] = leaves[name].sum(axis=1)
    for name in ("longest", "seen"):
        total[name] = leaves[name].max(axis=1)
    latest = leaves["seen"].argmax(axis=1)
    total["limit"] = leaves["limit"][np.arange(len(leaves)), latest]
    return total


def merge(
    keys: npt.NDArray[Any], leaves: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Each key once, with the sum of its leaves; both of shape (n,)."""
    if not len(keys):
        return keys, leaves
    numbers = np.ascontiguousarray(keys).view("u8").reshape(len(keys), -1)
    order = np.lexsort((leaves["seen"], *numbers.T))
    numbers, keys, leaves = numbers[order], keys[order], leaves[order]
    first = np.flatnonzero(
        np.concatenate(([True], (numbers[1:] != numbers[:-1]).any(axis=1)))
    )
    total = leaves[np.append(first[1:], len(leaves)) - 1].copy()  # latest: its limit
    for name in ("slots", "bytes", "big_bytes", "segments"):
        total[name] = np.add.reduceat(leaves[name], first, axis=0)
    total["longest"] = np.maximum.reduceat(leaves["longest"], first)
    return keys[first], total


def row_keys(keys: npt.NDArray[Any], contract: Contract) -> list[RowKey]:
    """Keys of the maps as ours."""
    hooks = {number: Hook(name) for number, name in contract.hooks.items()}
    families = {number: Family(name) for number, name in contract.families.items()}
    return [
        RowKey(DeviceId(netns, ifindex), hooks[hook], families[family])
        for netns, ifindex, hook, family in zip(
            *(keys[name].tolist() for name in ("netns", "ifindex", "hook", "family")),
            strict=True,
        )
    ]


def rows_of(
    keys: npt.NDArray[Any], leaves: npt.NDArray[Any], contract: Contract
) -> dict[RowKey, Row]:
    """Rows from keys and leaves, both of shape (n,)."""
    return {
        key: Row(key, lengths, limit)
        for key, lengths, limit in zip(
            row_keys(keys, contract),
            _lengths(leaves, contract),
            leaves["limit"].tolist(),
            strict=True,
        )
    }


def _lengths(leaves: npt.NDArray[Any], contract: Contract) -> Iterator[Lengths]:
    columns = (
        leaves[name].tolist()
        for name in ("slots", "bytes", "big_bytes", "segments", "longest")
    )
    for slots, size, big, segments, longest in zip(*columns, strict=True):
        histogram = Histogram(contract.edges, tuple(slots), size, big)
        yield Lengths(histogram, segments, longest)


def are_pods(keys: npt.NDArray[Any], contract: Contract) -> npt.NDArray[Any]:
    """Which keys are not a device's, but a pod's: true or false, shape (n,)."""
    mask: npt.NDArray[Any] = np.isin(keys["hook"], list(contract.pseudo_hooks))
    return mask


def pod_keys(keys: npt.NDArray[Any], contract: Contract) -> list[tuple[int, Family]]:
    """Keys of pods, as (ifindex, family)."""
    families = {number: Family(name) for number, name in contract.families.items()}
    return [
        (ifindex, families[family])
        for ifindex, family in zip(
            keys["ifindex"].tolist(), keys["family"].tolist(), strict=True
        )
    ]


def pods_of(
    keys: npt.NDArray[Any], leaves: npt.NDArray[Any], contract: Contract
) -> dict[tuple[int, Family], Lengths]:
    """What pods received, by (ifindex, family), from keys and leaves of pods."""
    return dict(zip(pod_keys(keys, contract), _lengths(leaves, contract), strict=True))


def devices_of(
    keys: npt.NDArray[Any], leaves: npt.NDArray[Any]
) -> dict[DeviceId, Device]:
    """Devices from keys, shape (n,), and leaves, shape (n, 1)."""
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
