# SPDX-License-Identifier: Apache-2.0
"""The Cilium agent of this node: its API on a unix socket, and its run directory.

Names are those of Cilium's api/v1/models (status_response.go and others), of
1.13 to 1.20: what moved between versions is read in both places.
"""

import ipaddress
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace

from agent.cluster.answer import Answer, parse, printable
from agent.cluster.relay import Relay
from agent.cluster.unixhttp import UnixServer
from agent.input_files import open_regular_file
from agent.snapshot.cilium import (
    Applied,
    BigTcp,
    DaemonConfig,
    Endpoint,
    PodSizes,
    RuntimeConfig,
)
from agent.snapshot.model import Family

DEFAULT_SOCKET = "/var/run/cilium/cilium.sock"
STATE = "state"  # the directory beside the socket
RUNTIME_FILE = f"{STATE}/agent-runtime-config.json"
# Of each endpoint, in a directory named by its id (EndpointStateFileName in
# pkg/common/const.go; since 1.16, 1.15 has the same JSON in a comment of C).
ENDPOINT_FILE = "ep_config.json"
DEADLINE_SECONDS = 3.0
MAX_ANSWER_BYTES = 16 << 20
# cilium.msg is "1.16.0 (v1.16.0-REVISION)", then four spaces and why it is not
# Ok: getStatus in pkg/status/status_collector.go (1.15: daemon/cmd/status.go).
_MESSAGE = re.compile(r"v?(\d[^\s()]*)(?: \([^)]*\))?(?:\s+(.*))?", re.DOTALL)
_MAX_IFINDEX = (1 << 31) - 1
_MAX_ENDPOINT_BYTES = 1 << 20
_ID = re.compile(r"[0-9]{1,5}")  # 16 bits
# The controller that asks the API server for the labels of a pod
# (resolveLabels in pkg/endpoint/endpoint.go). Its name is no API: it counts
# where the label of the namespace says the same.
_RESOLVE_LABELS = re.compile(r"resolve-labels-([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})")
_NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace="
# Endpoints that are no pods: pkg/labels/labels.go, and their devices.
_NO_PODS = {"reserved:host", "reserved:health", "reserved:ingress"}
_NO_POD_DEVICES = ("cilium_", "lxc_health")


def read_applied(  # noqa: PLR0913  the limits, and the clocks
    socket_path: str = DEFAULT_SOCKET,
    *,
    seconds: float = DEADLINE_SECONDS,
    most: int = MAX_ANSWER_BYTES,
    relay: Relay | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Applied | None:
    """Ask the Cilium agent; None where it has no socket.

    Three requests, in `seconds` together, each answered in `most` bytes, and asked by
    the `relay` where there is one. The socket is opened anew each time: a Cilium that
    restarts makes a new one. OSError, with a sentence, where the agent does not answer
    or writes what no Cilium would; endpoints that make no sense are left out instead.
    """
    server = UnixServer(socket_path, seconds, most, monotonic, relay)
    try:
        health = Answer.parse(server.get("/v1/healthz"), "Cilium's /v1/healthz")
    except FileNotFoundError:
        return None
    try:
        config = Answer.parse(server.get("/v1/config"), "Cilium's /v1/config")
        endpoints = parse(server.get("/v1/endpoint"), "Cilium's /v1/endpoint")
    except FileNotFoundError as err:  # it was there just now
        raise OSError("Cilium's socket went away while it was asked") from err
    found = applied(health, config.inner("status"), endpoints, wall())
    return replace(found, endpoints=_named(found.endpoints, _state(socket_path)))


def read_stored_endpoints(
    socket_path: str = DEFAULT_SOCKET,
) -> tuple[Endpoint, ...]:
    """The pods that Cilium's agent has stored, to restore them when it starts again.

    They are there while the agent is not, until the machine is started anew. It is
    serializableEndpoint of pkg/endpoint/restore.go, which Cilium keeps stable. A
    file that cannot be read, or makes no sense, is left out; so is what is no pod.
    """
    directory = _state(socket_path)
    try:
        with os.scandir(directory) as entries:
            ids = sorted(int(e.name) for e in entries if _ID.fullmatch(e.name))
    except OSError:
        return ()
    found = (_stored_endpoint(directory, number) for number in ids)
    return tuple(endpoint for endpoint in found if endpoint and endpoint.is_pod)


def left_anything(socket_path: str = DEFAULT_SOCKET) -> bool:
    """Is anything in the directory of the socket? Not where Cilium never ran.

    Its agent makes `state` there before it looks at BIG TCP: initEnv() of
    daemon/cmd/daemon_main.go, which runs before the hive that fails. So one that
    refuses to start is told from none. What cannot be read may hold something.
    """
    try:
        with os.scandir(os.path.dirname(socket_path) or ".") as entries:
            return next(entries, None) is not None
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def read_runtime_config(path: str) -> RuntimeConfig | None:
    """With which flags the Cilium agent was started; None where there is no file.

    It is option.DaemonConfig.StoreInFile of pkg/option/config.go. OSError where
    it cannot be read or is not that.
    """
    try:
        data, written = _read_file(path, MAX_ANSWER_BYTES)
    except FileNotFoundError:
        return None
    return RuntimeConfig(written, _daemon_config(Answer.parse(data, path)))


def applied(health: Answer, config: Answer, endpoints: object, read: float) -> Applied:
    """Join the answers of /v1/healthz, /v1/config (its status) and /v1/endpoint."""
    if not isinstance(endpoints, list | None):
        raise OSError("Cilium's /v1/endpoint answers no list")
    cilium = health.inner("cilium")
    message = _MESSAGE.fullmatch(cilium.text("msg"))
    replacement = health.inner("kube-proxy-replacement")
    node_port = replacement.inner("features").inner("nodePort")
    routing = health.inner("routing")
    daemon = _daemon_config(config.inner("daemonConfigurationMap"))
    # The unmarked sizes are IPv6's, as in the kernel.
    pod_sizes = {
        Family.IPV4: PodSizes(
            config.number("GSOIPv4MaxSize"), config.number("GROIPv4MaxSize")
        ),
        Family.IPV6: PodSizes(config.number("GSOMaxSize"), config.number("GROMaxSize")),
    }
    # 1.16 moved host-routing.mode to routing.intra-host-routing-mode, and says
    # there for the first time how packets leave the host.
    return Applied(
        read=read,
        version=message[1] if message else "",
        state=cilium.text("state"),
        message=(message[2] or "") if message else cilium.text("msg"),
        big_tcp={
            family: _big_tcp(health, daemon, family, sizes)
            for family, sizes in pod_sizes.items()
        },
        pod_sizes=pod_sizes,
        devices=replacement.texts("devices"),
        kube_proxy_replacement=replacement.text("mode"),
        host_routing=routing.text("intra-host-routing-mode")
        or health.inner("host-routing").text("mode"),
        masquerading=health.inner("masquerading").text("mode"),
        routing_mode=routing.text("inter-host-routing-mode").lower()
        or daemon.routing_mode,
        tunnel_protocol=routing.text("tunnel-protocol"),
        encryption=health.inner("encryption").text("mode"),
        datapath_mode=config.text("datapathMode") or health.text("datapath-mode"),
        attach_mode=health.text("attach-mode"),
        cni_chaining=health.inner("cni-chaining").text("mode"),
        load_balancer_mode=node_port.text("mode"),
        dsr_dispatch=node_port.text("dsrMode"),
        device_mtu=config.number("deviceMTU"),
        config=daemon,
        endpoints=tuple(
            endpoint
            for endpoint in map(_endpoint, endpoints or ())
            if endpoint is not None
        ),
    )


def canonical(address: object) -> str | None:
    """An IP address as ipaddress writes it; None where it is none."""
    if not isinstance(address, str):
        return None
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None


def _big_tcp(
    health: Answer, daemon: DaemonConfig, family: Family, sizes: PodSizes
) -> BigTcp:
    name = f"{family}-big-tcp"
    if not health.has(name):
        # Old versions' status does not mention it. Devices and pods got the same.
        enabled = daemon.big_tcp.get(family, False)
        return BigTcp(enabled, sizes.gso_max, sizes.gro_max)
    said = health.inner(name)
    return BigTcp(said.flag("enabled"), said.number("maxGSO"), said.number("maxGRO"))


def _daemon_config(fields: Answer) -> DaemonConfig:
    """Leniently: these are Go's names of struct fields, no API."""

    def flag(name: str) -> bool | None:
        found = fields.any(name)
        return found if isinstance(found, bool) else None

    def text(name: str) -> str:
        found = fields.any(name)
        return printable(found) if isinstance(found, str) else ""

    # By 1.20 EnableHostLegacyRouting stands in a struct of fields to avoid.
    unsafe = fields.any("UnsafeDaemonConfigOption")
    legacy = unsafe.get("EnableHostLegacyRouting") if isinstance(unsafe, dict) else None
    big_tcp = {
        Family.IPV4: flag("EnableIPv4BIGTCP"),
        Family.IPV6: flag("EnableIPv6BIGTCP"),
    }
    # 1.13 had one field, Tunnel, for both mode and protocol.
    tunnel = {"": "", "disabled": "native"}.get(text("Tunnel"), "tunnel")
    return DaemonConfig(
        big_tcp={family: on for family, on in big_tcp.items() if on is not None},
        routing_mode=text("RoutingMode") or tunnel,
        datapath_mode=text("DatapathMode"),
        host_legacy_routing=legacy
        if isinstance(legacy, bool)
        else flag("EnableHostLegacyRouting"),
        bpf_masquerade=flag("EnableBPFMasquerade"),
        ipsec=flag("EnableIPSec"),
        wireguard=flag("EnableWireguard"),
    )


def _endpoint(found: object) -> Endpoint | None:
    if not isinstance(found, dict):
        return None
    try:
        return _told_endpoint(Answer(found, "an endpoint"))
    except OSError:
        return None


def _told_endpoint(fields: Answer) -> Endpoint:
    status = fields.inner("status")
    networking = status.inner("networking")
    interface = networking.text("interface-name")
    labels = _labels(status)
    namespace, pod = _identifiers(status) or _resolved(status, labels) or ("", "")
    ifindex = networking.number("interface-index")
    if ifindex > _MAX_IFINDEX:
        raise OSError("no interface has such an index")
    addresses = (
        canonical(pair.text(family))
        for pair in networking.inners("addressing")
        for family in (Family.IPV4, Family.IPV6)
    )
    return Endpoint(
        id=fields.number("id"),
        state=status.text("state"),
        ifindex=ifindex,
        interface=interface,
        mac=networking.text("mac").lower(),
        host_mac=networking.text("host-mac").lower(),
        addresses=tuple(address for address in addresses if address),
        namespace=namespace,
        pod=pod,
        is_pod=bool(pod)
        or (
            ifindex > 0
            and not _NO_PODS & labels
            and not interface.startswith(_NO_POD_DEVICES)
        ),
    )


def _labels(status: Answer) -> set[str]:
    """Of its identity, and those that may not have led to one yet."""
    return {
        *status.inner("identity").texts("labels"),
        *status.inner("labels").texts("security-relevant"),
        *status.inner("labels").texts("derived"),
    }


def _identifiers(status: Answer) -> tuple[str, str] | None:
    """Namespace and pod, up to Cilium 1.19: 1.20 does not fill them any more
    (getModelEndpointIdentitiersRLocked in pkg/endpoint/api.go).
    """
    identifiers = status.inner("external-identifiers")
    # k8s-namespace and k8s-pod-name stand beside the older pod-name "ns/pod".
    older = identifiers.text("pod-name").partition("/")
    pod = identifiers.text("k8s-pod-name") or older[2]
    return (identifiers.text("k8s-namespace") or older[0], pod) if pod else None


def _resolved(status: Answer, labels: set[str]) -> tuple[str, str] | None:
    """Namespace and pod as a controller's name has them, and a label confirms."""
    names = {
        (match[1], match[2])
        for controller in status.inners("controllers")
        if (match := _RESOLVE_LABELS.fullmatch(controller.text("name")))
        and _NAMESPACE_LABEL + match[1] in labels
    }
    return names.pop() if len(names) == 1 else None


def _state(socket_path: str) -> str:
    return os.path.join(os.path.dirname(socket_path), STATE)


def _named(endpoints: tuple[Endpoint, ...], directory: str) -> tuple[Endpoint, ...]:
    """Pods whose name the answer does not tell, as Cilium has stored them."""
    return tuple(
        _with_stored_name(endpoint, directory)
        if endpoint.is_pod and not endpoint.pod
        else endpoint
        for endpoint in endpoints
    )


def _with_stored_name(endpoint: Endpoint, directory: str) -> Endpoint:
    stored = _stored_endpoint(directory, endpoint.id)
    # An id is given away again: it is this endpoint's where its device is.
    if stored is None or (stored.ifindex, stored.interface) != (
        endpoint.ifindex,
        endpoint.interface,
    ):
        return endpoint
    return replace(endpoint, namespace=stored.namespace, pod=stored.pod)


def _stored_endpoint(directory: str, number: int) -> Endpoint | None:
    """What Cilium has stored of an endpoint; None where that is not to be had."""
    path = os.path.join(directory, str(number), ENDPOINT_FILE)
    try:
        fields = Answer.parse(_read_file(path, _MAX_ENDPOINT_BYTES)[0], path)
        ifindex = fields.number("IfIndex")
        addresses = (canonical(fields.any(name)) for name in ("IPv4", "IPv6"))
        pod = fields.text("K8sPodName")
        return Endpoint(
            id=fields.number("ID"),
            state="stored",
            ifindex=ifindex,
            interface=fields.text("IfName"),
            mac="",
            host_mac="",
            addresses=tuple(address for address in addresses if address),
            namespace=fields.text("K8sNamespace"),
            pod=pod,
            is_pod=bool(pod) and 0 < ifindex <= _MAX_IFINDEX,
        )
    except OSError:
        return None


def _read_file(path: str, most: int) -> tuple[bytes, float]:
    """A regular file of at most `most` bytes, and when it was written (seconds since
    the epoch). OSError where it is longer, or no regular file: none is waited for.
    """
    with open_regular_file(path) as file:
        written = os.fstat(file.fileno()).st_mtime
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"{path} is longer than {most:,} bytes")
    return data, written
