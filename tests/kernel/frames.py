# SPDX-License-Identifier: Apache-2.0
"""Frames of known lengths, and a socket that sends them as they are."""

import socket
import struct
from collections.abc import Iterable

from agent.kernel.pods import packed
from agent.lab.netns import Namespace
from agent.snapshot.model import Family

N = 23  # prime: no sum of other counts looks like it
PACKET_VNET_HDR = 15
SOL_PACKET = 263
_NEEDS_CHECKSUM, _GSO_TCPV4, _GSO_TCPV6 = 1, 1, 4
_EXPERIMENTS, _NOTHING_FOLLOWS = 253, 59


def ip_packet(family: Family, length: int, to: str = "", *, protocol: int = 0) -> bytes:
    """A packet of `length` L3 bytes. Where nothing is said of whom it goes to, every
    receiver drops it in silence. A length that has no room is 0, as in BIG TCP.
    """
    if family is Family.IPV6:
        header = struct.pack(
            ">IHBB16s16s",
            6 << 28,
            length - 40 if length - 40 <= 65535 else 0,
            protocol or _NOTHING_FOLLOWS,
            64,
            bytes(16),
            packed(to) if to else bytes(16),
        )
        return header.ljust(length, b"\0")
    header = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x45, 0, length if length <= 65535 else 0, 0, 0, 64),
        *(protocol or _EXPERIMENTS, 0),
        *(bytes(4), packed(to)[12:] if to else bytes(4)),
    )
    if to:  # nobody hands it on, or to netfilter, without a checksum
        total = sum(struct.unpack(">10H", header))
        total = (total & 0xFFFF) + (total >> 16)
        header = header[:10] + struct.pack(">H", 0xFFFF - total) + header[12:]
    return header.ljust(length, b"\0")


def _ethernet(family: Family, tags: int) -> bytes:
    protocol = 0x0800 if family is Family.IPV4 else 0x86DD
    vlan = struct.pack(">HH", 0x8100, 7) * tags
    return b"\xff" * 6 + b"\x02\0\0\0\0\1" + vlan + struct.pack(">H", protocol)


def frame(family: Family, packet: bytes, tags: int = 0) -> bytes:
    """The packet in Ethernet, for packet_socket(): behind a virtio_net_hdr that says
    nothing.
    """
    return bytes(10) + _ethernet(family, tags) + packet


def gso_frame(
    family: Family, length: int, mss: int, tags: int = 0, to: str = ""
) -> bytes:
    """A TCP packet of `length` L3 bytes that stands for segments of `mss` bytes, with
    the virtio_net_hdr that says so.
    """
    packet = bytearray(ip_packet(family, length, to, protocol=socket.IPPROTO_TCP))
    tcp = 20 if family is Family.IPV4 else 40
    packet[tcp : tcp + 20] = struct.pack(
        ">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 1024, 0, 0
    )
    ethernet = _ethernet(family, tags)
    begin = len(ethernet) + tcp
    kind = _GSO_TCPV4 if family is Family.IPV4 else _GSO_TCPV6
    virtio = struct.pack("=BBHHHH", _NEEDS_CHECKSUM, kind, begin + 20, mss, begin, 16)
    return virtio + ethernet + packet


def packet_socket() -> socket.socket:
    """It belongs to the namespace where it is opened."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
    return raw


def send_frames(
    namespace: Namespace, frames: Iterable[bytes], device: str = "eth0"
) -> None:
    """Send them from a device."""
    with namespace.call(packet_socket) as raw:
        raw.bind((device, 0))
        for each in frames:
            raw.send(each)
