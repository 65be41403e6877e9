# SPDX-License-Identifier: Apache-2.0
"""Where big skbs are cut in software: queued above 64 KiB, sent in pieces. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from agent.snapshot.evidence import ENOUGH_SKBS, LEGACY, Evidence, gso_size
from agent.snapshot.histogram import used_slots
from agent.snapshot.model import Family, Hook, Lengths, RowKey, Scope
from agent.snapshot.snapshot import DeviceRows


class Cause(Enum):
    """Why a device does not get its skbs whole."""

    LIMIT = auto()  # its limit is below what was queued
    KERNEL = auto()  # it is not, but IPv6's is, which the kernel compares IPv4 with
    DEVICE = auto()  # neither is: the device cannot segment by itself


@dataclass(frozen=True, slots=True)
class Cut:
    """A device where big skbs of a family were queued and left in pieces.

    `limit` is the device's for this family, `ipv6_limit` the one for IPv6, None
    where it has not been seen lately; `longest` what was queued, at most. `pod` is
    namespace/pod whose device it is, "" where that is not known.
    """

    device: DeviceRows
    family: Family
    queued: int
    sent: int
    limit: int
    ipv6_limit: int | None
    longest: int
    pod: str

    @property
    def name(self) -> str:
        """The device, and whose it is or where it stands if not in our namespace."""
        if self.device.scope is Scope.NODE or self.device.device is None:
            return self.device.name
        if self.pod:
            return f"{self.device.name} of {self.pod}"
        return f"{self.device.name} (netns {self.device.device.netns_inode})"

    @property
    def cause(self) -> Cause:
        """The kernel's gso_features_check() compares the length with the limit; from
        24ab059d2ebd (6.7) until it was mended with IPv6's, whatever the family.
        """
        if self.limit < self.longest:
            return Cause.LIMIT
        if self.family is Family.IPV4 and (self.ipv6_limit or self.limit) <= LEGACY:
            return Cause.KERNEL
        return Cause.DEVICE


def cuts(evidence: Evidence, family: Family) -> tuple[Cut, ...]:
    """Devices that cut big skbs lately: ours and, where we have big ones at all,
    those of any namespace of this kernel. None where what they sent is not seen.
    """
    if not evidence.snapshot.attached.get(Hook.NET_DEV_START_XMIT):
        return ()
    found = []
    ours_are_big = evidence.traffic(family)[1] > 0
    recent = evidence.snapshot.recent.rows
    for key, lengths in recent.items():
        device = evidence.devices.get(key.device)
        if key.hook is not Hook.NET_DEV_QUEUE or key.family is not family:
            continue
        if device is None or (device.scope is Scope.OTHER and not ours_are_big):
            continue
        # One that foreign devices share, or that the kernel does not introduce: what
        # it sent may have been counted elsewhere.
        if device.scope is Scope.OTHER and device.device is None:
            continue
        queued = lengths.histogram.above(LEGACY)
        sent = recent.get(RowKey(key.device, Hook.NET_DEV_START_XMIT, family))
        left = sent.histogram.above(LEGACY) if sent else 0
        if queued >= ENOUGH_SKBS and left < queued / 2:
            found.append(
                Cut(
                    device,
                    family,
                    queued,
                    left,
                    device.rows[key.hook, family].limit,
                    _ipv6_limit(device, recent),
                    _longest(lengths),
                    evidence.pod_behind(device),
                )
            )
    return tuple(sorted(found, key=lambda cut: cut.device.id))


def _ipv6_limit(device: DeviceRows, recent: Mapping[RowKey, Lengths]) -> int | None:
    if device.link is not None:
        return gso_size(device.link, Family.IPV6)
    for hook in (Hook.NET_DEV_QUEUE, Hook.NET_DEV_START_XMIT):
        if RowKey(device.id, hook, Family.IPV6) in recent:
            return device.rows[hook, Family.IPV6].limit
    return None


def _longest(lengths: Lengths) -> int:
    """Lately: no more than the upper edge of the last slot that has counted."""
    edges, slots = lengths.histogram.edges, used_slots([lengths.histogram])
    return min([lengths.longest, *edges[slots[-1] : slots[-1] + 1]])
