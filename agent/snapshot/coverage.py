# SPDX-License-Identifier: Apache-2.0
"""Do we see what passes? Our bytes against those that the links count."""

from collections.abc import Iterable, Mapping

from agent.snapshot.model import Hook, Link
from agent.snapshot.snapshot import Coverage, DeviceRows

# What these receive is seen at the device below: netif_receive_skb comes before
# the skb changes its device.
_STACKED = ("bond", "team", "vlan", "macvlan", "ipvlan")
_DIRECTIONS = {Hook.NETIF_RECEIVE_SKB: "rx", Hook.NET_DEV_START_XMIT: "tx"}


class Covered:
    """Compares from the first look at a link on."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, Hook], Coverage] = {}

    def since_first(
        self,
        devices: Iterable[DeviceRows],
        links: Iterable[Link],
        attached: Mapping[Hook, bool],
    ) -> dict[tuple[str, str], Coverage]:
        """By name of the link and direction, where there was traffic to see."""
        counted = _framed_bytes(devices)
        names, now = {}, {}
        for link in links:
            names[link.ifindex] = link.name
            for hook in _DIRECTIONS:
                receives = hook is Hook.NETIF_RECEIVE_SKB
                if link.loopback or (receives and link.kind in _STACKED):
                    continue
                counters = link.counters
                now[link.ifindex, hook] = Coverage(
                    counted.get((link.ifindex, hook), 0),
                    counters.rx_bytes if receives else counters.tx_bytes,
                )
        # A device brings its counters along when it is moved: ours begin here.
        self._first = {at: self._first.get(at, first) for at, first in now.items()}
        return {
            (names[ifindex], _DIRECTIONS[hook]): Coverage(
                covered.counted - first.counted, covered.kernel - first.kernel
            )
            for (ifindex, hook), covered in now.items()
            if attached.get(hook)
            and covered.kernel > (first := self._first[ifindex, hook]).kernel
        }


def _framed_bytes(devices: Iterable[DeviceRows]) -> dict[tuple[int, Hook], int]:
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
