# SPDX-License-Identifier: Apache-2.0
"""What a hook saw of a namespace, and a stand that sends nothing by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.kernel.probes import Probes
from agent.lab.netns import Namespace, namespaces, veth
from agent.snapshot.model import Family, Hook, Lengths


def seen(
    probes: Probes, namespace: Namespace, hook: Hook, family: Family, name: str = "eth0"
) -> Lengths:
    """What a hook counted on a device of a namespace."""
    reading = probes.read()
    for key, row in reading.rows.items():
        device = reading.devices[key.device]
        at = (key.hook, key.family, device.id.netns, device.name)
        if at == (hook, family, namespace.cookie, name):
            return row.lengths
    return Lengths.empty(reading.edges)


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
