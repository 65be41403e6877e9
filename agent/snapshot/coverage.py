# SPDX-License-Identifier: Apache-2.0
"""Do we see what passes? Our bytes against those that the links count."""

from collections.abc import Collection, Iterable, Mapping

from agent.snapshot.model import Hook, Link
from agent.snapshot.snapshot import Coverage, DeviceRows

# What these receive is seen at the device below: netif_receive_skb comes before
# the skb changes its device. So it is at every master (bond, team, vrf, netvsc over
# its VF: netvsc_vf_handle_frame()) but a bridge, which receives anew what is for it
# (br_pass_frame_up()).
_STACKED = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap")
_RECEIVES_ANEW = "bridge"
# Their counters tell of something else. Ethernet in IP: the inner packet without
# its Ethernet header (iptunnel_xmit() in net/ipv4/ip_tunnel_core.c, vxlan_rcv(),
# geneve_rx()), 52 bytes for our 66 at an acknowledgement. Wireguard: what was
# padded and encrypted (encrypt_packet() in its send.c, update_rx_stats() in its
# receive.c). Tunnels of bare IP count as we do. What is sent to an ifb it counts as
# received, and gives it back to whose it was (ifb_xmit() in drivers/net/ifb.c).
_COUNTS_OTHERWISE = (
    *("vxlan", "geneve", "gretap", "ip6gretap", "erspan", "ip6erspan"),
    *("wireguard", "ifb"),
)
_DIRECTIONS = {Hook.NETIF_RECEIVE_SKB: "rx", Hook.NET_DEV_START_XMIT: "tx"}


class Covered:
    """Compares from the first look at a link on."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, Hook], Coverage] = {}

    def since_first(
        self,
        devices: Iterable[DeviceRows],
        links: Collection[Link],
        attached: Mapping[Hook, bool],
    ) -> dict[tuple[str, str], Coverage]:
        """By name of the link and direction, where there was traffic to see."""
        counted = _framed_bytes(devices)
        masters = {link.master for link in links}
        names, now = {}, {}
        for link in links:
            if link.loopback or link.kind in _COUNTS_OTHERWISE:
                continue
            names[link.ifindex] = link.name
            stacked = link.kind in _STACKED or (
                link.ifindex in masters and link.kind != _RECEIVES_ANEW
            )
            for hook in _DIRECTIONS:
                receives = hook is Hook.NETIF_RECEIVE_SKB
                if receives and stacked:
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
