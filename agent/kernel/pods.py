# SPDX-License-Identifier: Apache-2.0
"""Which pods the kernel counts by address, and what becomes of their rows."""

import ipaddress
import struct
from collections.abc import Mapping

from agent.kernel import libbpf
from agent.snapshot.model import OTHER_PODS, Family, Lengths

MAX_PODS = 1024  # with rows of their own: 768 bytes a CPU each, at the most

# 0 in the map means no pod: the program does not count it.
_OTHER_ROW = 0xFFFFFFFF

PodKey = tuple[int, Family]


def packed(address: str) -> bytes:
    """An address as struct pod_address; ValueError where it is none."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + ip.packed
    return ip.packed


class Addresses:
    """The map `pod_addresses`, kept as it is wished to be, by difference."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: dict[bytes, int] = {}
        self._named: dict[int, None] = {}  # a set that keeps its order

    @property
    def rows(self) -> set[int]:
        """The ifindexes that rows of living pods have."""
        return {*self._named, _OTHER_ROW}

    def set(self, addresses: Mapping[str, int], most: int) -> int:
        """See Probes.set_pod_addresses."""
        pods = dict.fromkeys(addresses.values())
        stay = [ifindex for ifindex in self._named if ifindex in pods]
        # Who has a row keeps it; who comes takes a free place, in order.
        self._named = dict.fromkeys(list(dict.fromkeys([*stay, *pods]))[:most])
        wanted = {
            packed(address): ifindex if ifindex in self._named else _OTHER_ROW
            for address, ifindex in addresses.items()
        }
        for key in self._map.keys() - wanted.keys():  # first: it makes room
            libbpf.remove(self._fd, key)
            del self._map[key]
        without_room = 0
        for key, ifindex in wanted.items():
            if self._map.get(key) == ifindex:
                continue
            try:
                libbpf.update(self._fd, key, struct.pack("=I", ifindex))
            except OSError as err:
                if err.errno not in libbpf.NO_ROOM:
                    raise
                without_room += 1
                if self._map.pop(key, None) is not None:
                    libbpf.remove(self._fd, key)  # or it counts for another pod
            else:
                self._map[key] = ifindex
        return without_room


class Received:
    """Leaves the rows of dead pods out, and says which to delete.

    A part of a row may stand on the fast lane, where only the kernel can delete:
    it is taken off until it is gone, should the pod live again.
    """

    def __init__(self) -> None:
        self._left: dict[PodKey, Lengths] = {}

    def split(
        self, pods: Mapping[PodKey, Lengths], living: set[int]
    ) -> tuple[dict[PodKey, Lengths], list[PodKey]]:
        """What living pods received; and the rows to delete now."""
        alive, dead = {}, []
        for key, lengths in pods.items():
            ifindex, family = key
            if ifindex not in living:
                dead.append(key)
                continue
            before = self._left.get(key)
            new = lengths.since(before) if before else lengths
            if new.histogram.count:
                alive[OTHER_PODS if ifindex == _OTHER_ROW else ifindex, family] = new
        return alive, dead

    def deleted(self, key: PodKey, left: Lengths | None) -> None:
        """A dead pod's row is deleted, but for what is `left` on the fast lane."""
        self._left.pop(key, None)
        if left is not None:
            self._left[key] = left
