# SPDX-License-Identifier: Apache-2.0
"""The pods of this node as Cilium knows them, with the best name there is. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from agent.snapshot.cilium import ClusterState, Endpoint
from agent.snapshot.snapshot import Snapshot


def pod_endpoints(snapshot: Snapshot) -> tuple[Endpoint, ...]:
    """What Cilium's agent serves, of that the pods; where it has not answered, what
    it has stored, as far as the device is still there under that name.
    """
    if snapshot.applied is not None:
        endpoints = tuple(e for e in snapshot.applied.endpoints if e.is_pod)
    else:
        names = {link.ifindex: link.name for link in snapshot.links}
        endpoints = tuple(
            endpoint
            for endpoint in snapshot.stored_endpoints
            if names.get(endpoint.ifindex) == endpoint.interface
        )
    return named_by_address(endpoints, snapshot.cluster)


def named_by_address(
    endpoints: Iterable[Endpoint], cluster: ClusterState | None
) -> tuple[Endpoint, ...]:
    """Pods without a name get that of the Kubernetes pod that has their address,
    where the API server was asked for pods.
    """
    pods = (cluster.pods if cluster else None) or ()
    owners = {
        address: pod
        for pod in pods
        if not pod.host_network  # those have the address of the node
        for address in pod.addresses
    }
    return tuple(
        endpoint
        if endpoint.pod
        else next(
            (
                replace(
                    endpoint,
                    namespace=owners[address].namespace,
                    pod=owners[address].name,
                )
                for address in endpoint.addresses
                if address in owners
            ),
            endpoint,
        )
        for endpoint in endpoints
    )
