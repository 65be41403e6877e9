# SPDX-License-Identifier: Apache-2.0
"""Which pods there are, and what they are called."""

from dataclasses import replace

from agent.snapshot.cilium import ClusterState, Pod
from agent.snapshot.endpoints import named_by_address
from agent.snapshot.evidence import Evidence
from tests.snapshot.fakes import endpoint
from tests.snapshot.world import DOWN, HOST_SIDE, IPV4, UP, World

POD = endpoint(HOST_SIDE, "", "10.244.1.54", "fd00:244:1::d151")
HOST = replace(POD, id=7, ifindex=4, interface="cilium_host", is_pod=False)


def cluster(*pods: Pod) -> ClusterState:
    return ClusterState(wanted=None, pods=pods, sources={}, problems={})


def pod(name: str, *addresses: str, host_network: bool = False) -> Pod:
    return Pod("default", name, addresses, host_network, None)


def test_a_pod_has_the_name_of_who_has_its_address() -> None:
    web = pod("web", "fd00:244:1::d151")
    (found,) = named_by_address([POD], cluster(web, pod("other", "10.244.1.55")))
    assert found.name == "default/web"


def test_what_cilium_calls_a_pod_is_not_asked_elsewhere() -> None:
    known = replace(POD, namespace="default", pod="told")
    assert named_by_address([known], cluster(pod("web", "10.244.1.54"))) == (known,)


def test_a_pod_on_the_network_of_the_host_lends_no_name() -> None:
    """It has the address of the node."""
    agent = pod("agent", "10.244.1.54", host_network=True)
    (found,) = named_by_address([POD], cluster(agent))
    assert found.name == "lxc1"


def test_a_pod_without_a_name_counts_under_that_of_its_device() -> None:
    world = World()
    world.resize("lxc1", DOWN)
    world.change(endpoints=(POD, HOST))
    assert world.told()[1] == ["C06 warning"]
    evidence = Evidence(world.snapshot)
    assert [each.name for each in evidence.pods] == ["lxc1"]
    assert [each.name for each in evidence.legacy_pods(IPV4)] == ["lxc1"]
    assert world.verdict.findings[0].subjects == ("lxc1",)


def test_a_pod_without_a_name_whose_device_is_not_here() -> None:
    world = World()
    world.change(endpoints=(replace(POD, ifindex=99, interface="lxc99"), HOST))
    world.told()
    assert Evidence(world.snapshot).unknown_pods == ("lxc99",)


def test_while_cilium_is_mute_its_stored_pods_name_the_devices() -> None:
    world = World()
    world.mute(DOWN)
    stored = replace(POD, namespace="default", pod="web")
    # Its index was given to another device since.
    stale = replace(stored, id=8, ifindex=2, interface="lxc2", pod="gone")
    world.stored = (stored, stale)
    world.told()
    assert [each.name for each in Evidence(world.snapshot).pods] == ["default/web"]


def test_while_cilium_is_mute_the_device_of_its_health_checks_is_no_pod() -> None:
    """An agent that was killed leaves it: a pair with a namespace, as pods have."""
    world = World()
    world.mute(UP)
    world.add(replace(world.links["lxc1"], ifindex=10, name="lxc_health", sizes=DOWN))
    _, findings = world.told()
    assert [each.name for each in Evidence(world.snapshot).pods] == ["lxc1"]
    assert findings == ["C22 warning"]
