# SPDX-License-Identifier: Apache-2.0
"""Real Probes on a machine of 64 CPUs: its maps are bytes, as that kernel would copy
them out, batch by batch. All else is this kernel's.
"""

import contextlib
import ctypes
import errno
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from agent.kernel import libbpf
from agent.kernel.probes import Probes
from agent.snapshot.model import DeviceId, Hook
from agent.views.exporter import FromSource

CPUS = 64
Array = npt.NDArray[Any]
Row = tuple[int, int, int, int, int]  # the fields of struct skb_length_key


class Maps:
    """libbpf, but for the maps that are given here: rows of keys and of values."""

    def __init__(self, maps: dict[int, tuple[Array, Array]]) -> None:
        self._library = libbpf._library()
        self._maps = {
            fd: (len(keys), keys.tobytes(), values.tobytes())
            for fd, (keys, values) in maps.items()
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def bpf_map_lookup_batch(  # noqa: PLR0917  as libbpf has it
        self, fd: int, at: Any, next_: Any, keys: Any, values: Any, count: Any, _: None
    ) -> int:
        if fd not in self._maps:
            real = self._library.bpf_map_lookup_batch
            return int(real(fd, at, next_, keys, values, count, None))
        total, all_keys, all_values = self._maps[fd]
        begin = at._obj.value if at else 0
        end = min(begin + count._obj.value, total)
        for room, of in ((keys, all_keys), (values, all_values)):
            size = len(of) // total
            ctypes.memmove(room, of[begin * size : end * size], (end - begin) * size)
        count._obj.value, next_._obj.value = end - begin, end
        ctypes.set_errno(errno.ENOENT)
        return 0 if end < total else -1


@contextlib.contextmanager
def probes(
    rows: Sequence[Row], peers: dict[DeviceId, DeviceId], pods_of: int | None = None
) -> Iterator[Probes]:
    """These rows, each counted on every CPU, as many as there is room for also on
    every CPU's fast lane; veth devices with their peers.
    """
    real, cpus = libbpf._library, libbpf.possible_cpus
    libbpf.possible_cpus = lambda: CPUS
    try:
        with Probes.load([Hook.NETIF_RECEIVE_SKB], pods_of=pods_of) as loaded:
            keys = np.array(rows, loaded.dtypes[0])
            leaves = np.ones((len(rows), CPUS), loaded.dtypes[1])
            slots, _ = loaded._recent.read()
            recent = np.zeros((len(slots), CPUS), loaded._recent.dtypes[1])
            fast = min(len(slots), len(rows))
            recent["key"][:fast] = keys[:fast, np.newaxis]
            recent["leaf"][:fast] = 1
            of = loaded._loaded.maps
            maps = Maps(
                {
                    of["lengths"]: (keys, leaves),
                    of["recent"]: (slots, recent),
                    of["devices"]: _devices(loaded, peers),
                }
            )
            libbpf._library = lambda: maps  # type: ignore[assignment]
            yield loaded
    finally:
        libbpf._library, libbpf.possible_cpus = real, cpus


def _devices(loaded: Probes, peers: dict[DeviceId, DeviceId]) -> tuple[Array, Array]:
    key, leaf = loaded._devices["devices"].dtypes
    keys, leaves = np.zeros(len(peers), key), np.zeros(len(peers), leaf)
    for at, (device, peer) in enumerate(peers.items()):
        keys[at]["netns"], keys[at]["ifindex"] = device.netns, device.ifindex
        its = leaves[at]["peer"]
        its["netns"], its["ifindex"] = peer.netns, peer.ifindex
        leaves[at]["name"] = f"eth{device.ifindex}".encode()
        leaves[at]["kind"] = b"veth"
    return keys, leaves


def scrapes(source: FromSource, rounds: int) -> tuple[list[float], bytes]:
    """Milliseconds of each, and the text."""
    registry = CollectorRegistry()
    registry.register(source)
    times, text = [], b""
    for _ in range(rounds):
        begun = time.perf_counter()
        text = generate_latest(registry)
        times.append(1000 * (time.perf_counter() - begun))
    return times, text
