# SPDX-License-Identifier: Apache-2.0
"""Which pods the kernel is told of, as Cilium lists them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from agent.kernel.probes import Probes
from agent.node import PodWatch
from agent.snapshot.cilium import ClusterState, Endpoint, Pod
from agent.snapshot.collector import Collector
from agent.snapshot.sources import Surroundings
from tests.snapshot.fakes import OURS, FakeProbes, endpoint
from tests.sources.agent import recorded, understood

LO = 1  # stands in every namespace
GONE = 2**31 - 1  # stands in none
NOBODY = understood(recorded("1.20.2")["on"])


class Kernel:
    """Keeps the last addresses that it was told."""

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}

    def set_pod_addresses(self, addresses: Mapping[str, int]) -> int:
        self.addresses = dict(addresses)
        return 0


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def watch(kernel: Kernel) -> PodWatch:
    watch = PodWatch(8)
    watch.attach(cast("Probes", kernel))
    return watch


def see(
    watch: PodWatch, *endpoints: Endpoint, objects: tuple[Pod, ...] = ()
) -> list[str]:
    """What is listed, and the pods that the API server has; who has a name then."""
    watch.see(replace(NOBODY, endpoints=endpoints))
    cluster = ClusterState(wanted=None, pods=objects, sources={}, problems={})
    around = Surroundings(cluster=lambda: cluster)
    snapshot = Collector(FakeProbes(), list, OURS, around).snapshot()
    return [pod.pod for pod in watch.traffic(snapshot).named]


def test_a_pod_that_is_not_listed_stays_while_its_device_does(
    watch: PodWatch, kernel: Kernel
) -> None:
    """An agent of Cilium that has just begun lists few pods, or none."""
    web, gone = endpoint(LO, "web", "10.0.0.1"), endpoint(GONE, "gone", "10.0.0.2")
    assert see(watch, web, gone) == ["gone", "web"]
    assert see(watch) == ["web"]
    assert kernel.addresses == {"10.0.0.1": LO}


def test_an_address_is_who_is_listed_with_it(watch: PodWatch, kernel: Kernel) -> None:
    see(watch, endpoint(LO, "web", "10.0.0.1"))
    see(watch, endpoint(GONE, "heir", "10.0.0.1"))
    assert kernel.addresses == {"10.0.0.1": GONE}


def test_a_device_that_is_listed_is_who_it_is_now(
    watch: PodWatch, kernel: Kernel
) -> None:
    see(watch, endpoint(LO, "web", "10.0.0.1"))
    assert see(watch, endpoint(LO, "heir", "10.0.0.2")) == ["heir"]
    assert kernel.addresses == {"10.0.0.2": LO}


def test_a_name_by_address_stays_as_long_as_the_device(watch: PodWatch) -> None:
    """The API server drops a pod before its device is gone, and Cilium its endpoint."""
    nameless = endpoint(LO, "", "10.0.0.1")
    web = Pod("default", "web", ("10.0.0.1",), host_network=False, started=None)
    assert see(watch, nameless) == ["lxc1"]
    assert see(watch, nameless, objects=(web,)) == ["web"]
    assert see(watch, nameless) == ["web"]
    assert see(watch) == ["web"]
    # The pod before had the address, too, and was listed for longer.
    heir = replace(web, name="heir")
    assert see(watch, nameless, objects=(heir,)) == ["heir"]
    assert see(watch, endpoint(GONE, "other", "10.0.0.2")) == ["heir", "other"]
    # Another pod on a device with the same index.
    assert see(watch, replace(nameless, id=2)) == ["lxc1"]
