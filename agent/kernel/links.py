# SPDX-License-Identifier: Apache-2.0
"""Links of the agent's own network namespace, over rtnetlink.

Why not a library: pyroute2 0.9.7 knows neither IPv4 size, decodes attributes
nobody asked for (301 links: 51 ms, here 6 ms) and adds 10 MiB; iproute2 before
6.3 prints no IPv4 sizes either. Numbers are those of linux/rtnetlink.h and
linux/if_link.h.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

from agent.errors import OldKernelError
from agent.snapshot.model import Counters, Link, Sizes

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP_INTR = 0x10
_RTM_NEWLINK, _RTM_GETLINK, _RTM_GETADDR = 16, 18, 22
_IFF_LOOPBACK = 0x8
_ARPHRD_ETHER, _ETH_HLEN = 1, 14
_RT_SCOPE_UNIVERSE = 0
_ADDRESS_BITS = {socket.AF_INET: 32, socket.AF_INET6: 128}
_NLA_TYPE_MASK = 0x3FFF
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER, _IFLA_LINKINFO = 10, 18
_IFLA_STATS64, _IFLA_LINK_NETNSID, _IFLA_INFO_KIND = 23, 37, 1
IFLA_GSO_MAX_SIZE, IFLA_GRO_MAX_SIZE, IFLA_TSO_MAX_SIZE = 41, 58, 59
IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE = 63, 64
_SO_NETNS_COOKIE = 71  # Linux 5.14; the same on every architecture we meet
_DUMPS = 10  # one that changes underneath is asked for again
_LEGACY_MAX_SIZE = 65536  # GSO_LEGACY_MAX_SIZE

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, ifindex
_ERRNO = _NUMBER = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: len, type
_STATS_RX_TX_BYTES = struct.Struct("=16xQQ")  # rtnl_link_stats64 after 2 packets


def own_netns_cookie() -> int:
    """net->net_cookie of this process's network namespace: unique until reboot.

    OldKernelError where the kernel gives namespaces none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            cookie = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError as err:
            raise OldKernelError(
                f"this kernel's network namespaces have no cookie: {err.strerror}"
            ) from err
    return int.from_bytes(cookie, sys.byteorder)


class Rtnetlink:
    """A NETLINK_ROUTE socket of the namespace in which it was opened.

    Every failure is an OSError with the kernel's errno.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._socket.settimeout(5)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def links(self) -> list[Link]:
        """All links, in the kernel's order: by ifindex."""
        links = self._dump(_RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0))
        addresses = self._dump(_RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0))
        in_subnet = set()
        for payload in addresses:
            family, prefix, _, scope, ifindex = _IFADDRMSG.unpack_from(payload)
            if scope == _RT_SCOPE_UNIVERSE and prefix < _ADDRESS_BITS.get(family, 0):
                in_subnet.add(ifindex)
        return [_link(payload, in_subnet) for payload in links]

    def set_sizes(self, name: str, **sizes: int) -> None:
        """Set size limits of a link by keyword: gso_max, gro_max, gso_ipv4_max,
        gro_ipv4_max, in bytes. OSError(EINVAL) above what the device takes.
        """
        numbers = {
            "gro_max": IFLA_GRO_MAX_SIZE,
            "gso_max": IFLA_GSO_MAX_SIZE,
            "gro_ipv4_max": IFLA_GRO_IPV4_MAX_SIZE,
            "gso_ipv4_max": IFLA_GSO_IPV4_MAX_SIZE,
        }
        header = _IFINFOMSG.pack(0, 0, socket.if_nametoindex(name), 0, 0)
        # Generic before IPv4, as Cilium does: setting a generic size to 64 KiB
        # or less resets its IPv4 twin.
        for key in sorted(sizes, key=list(numbers).index):
            attribute = struct.pack("=HHI", 8, numbers[key], sizes[key])
            for _ in self._ask(_RTM_NEWLINK, _NLM_F_ACK, header + attribute):
                pass

    def _dump(self, message_type: int, body: bytes) -> list[bytes]:
        for _ in range(_DUMPS - 1):
            with contextlib.suppress(InterruptedError):
                return list(self._ask(message_type, _NLM_F_DUMP, body))
        return list(self._ask(message_type, _NLM_F_DUMP, body))

    def _ask(self, message_type: int, flags: int, body: bytes) -> Iterator[bytes]:
        """Payloads; InterruptedError at the end of a dump that changed meanwhile."""
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(
            length, message_type, flags | _NLM_F_REQUEST, self._sequence, 0
        )
        self._socket.send(header + body)
        changed = 0
        while True:
            datagram = self._socket.recv(1 << 20)
            at = 0
            while at < len(datagram):
                size, kind, its_flags, sequence, _ = _HEADER.unpack_from(datagram, at)
                payload = datagram[at + _HEADER.size : at + size]
                at += size + 3 & ~3
                if sequence != self._sequence:  # of a request that timed out
                    continue
                changed |= its_flags & _NLM_F_DUMP_INTR
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    (number,) = _ERRNO.unpack_from(payload)
                    if number or changed:
                        code = -number or errno.EINTR
                        raise OSError(code, os.strerror(code))
                    return
                yield payload


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            raise OSError(errno.EBADMSG, "a netlink attribute without length")
        found[kind & _NLA_TYPE_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += size + 3 & ~3
    return found


def _link(payload: bytes, in_subnet: set[int]) -> Link:
    _, hardware, ifindex, flags, _ = _IFINFOMSG.unpack_from(payload)
    attributes = _attributes(payload[_IFINFOMSG.size :])

    def number(kind: int) -> int | None:
        data = attributes.get(kind)
        return None if data is None else int(_NUMBER.unpack_from(data)[0])

    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    received, sent = _STATS_RX_TX_BYTES.unpack_from(attributes[_IFLA_STATS64])
    return Link(
        ifindex=ifindex,
        name=attributes[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        kind=info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        loopback=bool(flags & _IFF_LOOPBACK),
        in_subnet=ifindex in in_subnet,
        parent=number(_IFLA_LINK),
        master=number(_IFLA_MASTER),
        netnsid=number(_IFLA_LINK_NETNSID),
        header=_ETH_HLEN if hardware == _ARPHRD_ETHER else 0,
        mtu=number(_IFLA_MTU) or 0,
        sizes=Sizes(
            gso_max=number(IFLA_GSO_MAX_SIZE) or _LEGACY_MAX_SIZE,
            gro_max=number(IFLA_GRO_MAX_SIZE) or _LEGACY_MAX_SIZE,
            tso_max=number(IFLA_TSO_MAX_SIZE),
            gso_ipv4_max=number(IFLA_GSO_IPV4_MAX_SIZE),
            gro_ipv4_max=number(IFLA_GRO_IPV4_MAX_SIZE),
        ),
        counters=Counters(rx_bytes=received, tx_bytes=sent),
    )
