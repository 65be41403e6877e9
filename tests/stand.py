# SPDX-License-Identifier: Apache-2.0
"""What a hook saw of a namespace, and a stand that sends nothing by itself."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from agent.kernel.probes import Probes
from agent.lab.netns import Namespace, namespaces, veth, wait_until
from agent.snapshot.model import Family, Hook, Lengths, Reading, Row

T = TypeVar("T")


def row_of(
    reading: Reading,
    namespace: Namespace,
    hook: Hook,
    family: Family,
    name: str = "eth0",
) -> Row | None:
    """The row of a device of a namespace."""
    for key, row in reading.rows.items():
        # Whose it is, the kernel tells a moment after the first skb.
        device = reading.devices.get(key.device)
        if device is None or (device.id.netns, device.name) != (namespace.cookie, name):
            continue
        if (key.hook, key.family) == (hook, family):
            return row
    return None


def seen(
    probes: Probes, namespace: Namespace, hook: Hook, family: Family, name: str = "eth0"
) -> Lengths:
    """What a hook counted on a device of a namespace."""
    row = row_of(probes.read(), namespace, hook, family, name)
    return row.lengths if row else Lengths.empty(probes.edges)


def at_rest(look: Callable[[], T]) -> T:
    """What `look` finds when no softirq has an skb between two of its hooks.

    One reading is no moment: what entered GRO may not have come out of it yet. Nothing
    has moved, and no softirq is at it, where two readings are alike and every softirq
    that ran at the first has ended by the second.
    """

    def unmoved() -> list[T]:
        first = look()
        _let_softirqs_end()
        return [first] if look() == first else []

    return wait_until(unmoved, "two readings alike")[0]


def _let_softirqs_end() -> None:
    """packet_release(), net/packet/af_packet.c, calls synchronize_net()."""
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def write_sysctl(namespace: Namespace, name: str, value: str) -> None:
    def inside() -> None:
        with open(f"/proc/sys/net/{name}", "w") as file:
            file.write(value)

    namespace.call(inside)


@contextmanager
def quiet_pair(mtu: int = 1500) -> Iterator[tuple[Namespace, Namespace]]:
    """client and server, eth0 to eth0, where no packet comes from the kernel."""
    with namespaces("client", "server") as (client, server):
        for namespace in (client, server):
            write_sysctl(namespace, "ipv6/conf/default/disable_ipv6", "1")
        veth(client, "eth0", server, "eth0", mtu)
        yield client, server
