# SPDX-License-Identifier: Apache-2.0
"""What Cilium was asked for, what it applied, and the pods it serves.

Words are Cilium's own, as its API and its ConfigMap write them; "" where this
version of Cilium, or this answer, does not say. Sizes are bytes, times seconds
since the epoch, IP addresses in the canonical form of the ipaddress module.
"""

import shlex
from dataclasses import dataclass

from agent.snapshot.model import Family, Source
from agent.typed_json import Count

# How the names of Cilium's own devices begin. That of its health checks leads into a
# network namespace, as those of pods do (pkg/health/health_connectivity_endpoint.go).
OWN_DEVICES = ("cilium_", "lxc_health")


@dataclass(frozen=True, slots=True)
class BigTcp:
    """BIG TCP of one family, as the Cilium agent reports it.

    `enabled` is the user's flag. Whether it took effect the two sizes tell:
    above 65536. They are 0 where Cilium reports none.
    """

    enabled: bool = False
    max_gso: Count = 0
    max_gro: Count = 0


@dataclass(frozen=True, slots=True)
class PodSizes:
    """Limits that Cilium's CNI plugin sets on both ends of a new pod's pair."""

    gso_max: int = 0
    gro_max: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What Cilium serves on this node: a pod, the host or the health check.

    `ifindex` and `interface` are the host side of the pod's pair; of the host they
    are those of cilium_host, or 0 and "". `namespace` and `pod` are "" where Cilium
    does not tell them: of what is no pod, and of a pod whose name no source of this
    version has.
    """

    id: int
    ifindex: int
    interface: str
    addresses: tuple[str, ...]
    namespace: str
    pod: str
    is_pod: bool

    @property
    def name(self) -> str:
        """namespace/pod; where the pod has no name here, its device on the host."""
        if self.pod:
            return f"{self.namespace}/{self.pod}"
        return self.interface or f"ifindex:{self.ifindex}"


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """option.DaemonConfig as far as it concerns BIG TCP: the flags with which
    the Cilium agent was started, after the ConfigMap and node configs were merged.

    `big_tcp` knows a family only up to Cilium 1.14; later it stands elsewhere.
    None: not said.
    """

    big_tcp: dict[Family, bool]
    routing_mode: str
    datapath_mode: str
    host_legacy_routing: bool | None
    bpf_masquerade: bool | None
    ipsec: bool | None
    wireguard: bool | None


@dataclass(frozen=True, slots=True)
class CiliumAgent:
    """What the Cilium agent of this node says of itself.

    `state` is Ok, Warning, Failure or Disabled, `message` why. `host_routing` is
    BPF or Legacy, `routing_mode` native or tunnel, `masquerading` BPF, iptables
    or "" where it is off, `encryption` Disabled, IPsec, Wireguard or Ztunnel,
    `datapath_mode` veth, netkit or netkit-l2, `attach_mode` tc or tcx.
    `kube_proxy_replacement` is True or False; older ones also say Strict, Partial,
    Probe or Disabled. `load_balancer_mode` is SNAT, DSR or Hybrid, `dsr_dispatch` such
    as Geneve or IPIP. `devices` are the native devices, those that BIG TCP is
    set on.
    """

    read: float
    version: str
    state: str
    message: str
    big_tcp: dict[Family, BigTcp]
    pod_sizes: dict[Family, PodSizes]
    devices: tuple[str, ...]
    kube_proxy_replacement: str
    host_routing: str
    masquerading: str
    routing_mode: str
    tunnel_protocol: str
    encryption: str
    datapath_mode: str
    attach_mode: str
    cni_chaining: str
    load_balancer_mode: str
    dsr_dispatch: str
    device_mtu: int
    config: DaemonConfig


@dataclass(frozen=True, slots=True)
class Applied(CiliumAgent):
    """All that it says, with the pods that it serves."""

    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of this node that has not ended. `started` is when the kubelet took it."""

    namespace: str
    name: str
    addresses: tuple[str, ...]
    host_network: bool
    started: float | None


@dataclass(frozen=True, slots=True)
class CiliumPod:
    """The pod of Cilium's agent on this node, as the kubelet reports it.

    `waiting` is why its container does not run, such as CrashLoopBackOff, "" while
    it runs; `restarts` how often it was started again. The rest is of the last time
    that it ended (`lastState.terminated`): None, "" and None where it never did.
    `message` is the end of its log where the container ended with an error
    (terminationMessagePolicy FallbackToLogsOnError, as Cilium's chart sets it);
    `finished` is in seconds since the epoch.
    """

    namespace: str
    name: str
    waiting: str
    restarts: int
    exit_code: int | None
    reason: str
    message: str
    finished: float | None
    container: str = "cilium-agent"

    @property
    def logs_command(self) -> str:
        """What prints the log of its last end, or of now where it never ended."""
        where = ("-n", self.namespace, self.name, "-c", self.container)
        previous = ("--previous",) if self.restarts else ()
        return shlex.join(("kubectl", "logs", *where, *previous))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What Kubernetes says that Cilium should do on this node.

    `values`: the keys of the ConfigMap that matter for BIG TCP, node configs
    merged in; an absent key has Cilium's default. `found`: there is such a
    ConfigMap. `overridden`: key to the name of the CiliumNodeConfig that set it.
    `changed`: when a value was last seen to change, None while none has.
    `seen`: the last word of the API server, events and bookmarks included.
    """

    values: dict[str, str]
    found: bool
    overridden: dict[str, str]
    changed: float | None
    seen: float

    def flag(self, key: str) -> bool:
        """A boolean as Go's strconv.ParseBool reads it; absent is False."""
        return self.values.get(key, "") in ("1", "t", "T", "true", "TRUE", "True")


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What is known of the cluster now, and how well.

    `wanted`, `pods` and `cilium_pods` are None until they were first read; afterwards
    the last good answer stays. `sources` has a row for each of `configmap`,
    `nodeconfigs`, `pods` and `cilium_pods` that is asked for: one that is absent (no
    API server, no such resource, no right to node configs) is up=False without
    errors. `problems` says of each that is not up why, in a sentence.
    """

    wanted: Wanted | None
    pods: tuple[Pod, ...] | None
    sources: dict[str, Source]
    problems: dict[str, str]
    cilium_pods: tuple[CiliumPod, ...] | None = None
