# SPDX-License-Identifier: Apache-2.0
"""Which pods the kernel counts by address, and what becomes of their rows."""

import ipaddress
import struct
from collections.abc import Iterable, Mapping

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
    """Takes the rows of dead pods out of the living's, and loses no count.

    A part of a row may stand on the fast lane, where only the kernel can delete:
    what was summed of it already is taken off until it is gone.
    """

    def __init__(self) -> None:
        self.gone: dict[Family, Lengths] = {}
        self._summed: dict[PodKey, Lengths] = {}

    def split(
        self, pods: Mapping[PodKey, Lengths], living: set[int], fast: set[PodKey]
    ) -> tuple[dict[PodKey, Lengths], list[PodKey]]:
        """What living pods received; and the rows to delete now."""
        alive, dead = {}, []
        for key, lengths in pods.items():
            ifindex, family = key
            before = self._summed.get(key)
            new = lengths.since(before) if before else lengths
            if ifindex in living:
                if new.histogram.count:
                    alive[OTHER_PODS if ifindex == _OTHER_ROW else ifindex, family] = (
                        new
                    )
                continue
            if new.histogram.count:
                sum_of = self.gone.get(family)
                self.gone[family] = sum_of.add(new) if sum_of else new
            if new.histogram.count or key not in fast:
                dead.append(key)
        return alive, dead

    def keep(self, dead: Iterable[PodKey], left: Mapping[PodKey, Lengths]) -> None:
        """`left`: what still stands after the dead's rows were deleted."""
        for key in dead:
            self._summed.pop(key, None)
            if key in left:
                self._summed[key] = left[key]
