# SPDX-License-Identifier: Apache-2.0
"""The Cilium agent of this node: its API on a unix socket, and its run directory.

Names are those of Cilium's api/v1/models (status_response.go and others), of
1.13 to 1.20: what moved between versions is read in both places.
"""

import ipaddress
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, TypeVar

import msgspec
from msgspec import Raw, field

from agent.cluster.answer import (
    Fields,
    Ifindex,
    Number,
    Text,
    Texts,
    decode,
    printable,
)
from agent.cluster.relay import Relay
from agent.cluster.unixhttp import UnixServer
from agent.input_files import open_regular_file
from agent.snapshot.cilium import (
    OWN_DEVICES,
    Applied,
    BigTcp,
    DaemonConfig,
    Endpoint,
    PodSizes,
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
T = TypeVar("T")
_MAX_ENDPOINTS = 10_000
# One of them is left out where it makes no sense: then each is decoded by itself, in
# an answer of at most so many commas (16 MiB may have 8 million elements).
_MAX_COMMAS = 500_000
_MAX_ENDPOINT_BYTES = 1 << 20
_ID = re.compile(r"[0-9]{1,5}")  # 16 bits
# The controller that asks the API server for the labels of a pod
# (resolveLabels in pkg/endpoint/endpoint.go). Its name is no API: it counts
# where the label of the namespace says the same.
_RESOLVE_LABELS = re.compile(r"resolve-labels-([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})")
_NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace="
# Endpoints that are no pods: pkg/labels/labels.go.
_NO_PODS = {"reserved:host", "reserved:health", "reserved:ingress"}
_Few = msgspec.Meta(max_length=4096)


class _Mode(Fields):
    mode: Text = None


class _Status(Fields):
    state: Text = None
    msg: Text = None


class _BigTcp(Fields):
    enabled: bool | None = None
    max_gso: Number = field(default=None, name="maxGSO")
    max_gro: Number = field(default=None, name="maxGRO")


class _NodePort(Fields):
    mode: Text = None
    dsr_mode: Text = field(default=None, name="dsrMode")


class _Features(Fields):
    node_port: _NodePort | None = field(default=None, name="nodePort")


class _Replacement(Fields):
    mode: Text = None
    devices: Texts = None
    features: _Features | None = None


class _Routing(Fields):
    intra_host_routing_mode: Text = None
    inter_host_routing_mode: Text = None
    tunnel_protocol: Text = None


class Health(Fields):
    """/v1/healthz: StatusResponse."""

    cilium: _Status | None = None
    kube_proxy_replacement: _Replacement | None = None
    routing: _Routing | None = None
    host_routing: _Mode | None = None
    masquerading: _Mode | None = None
    encryption: _Mode | None = None
    cni_chaining: _Mode | None = None
    datapath_mode: Text = None
    attach_mode: Text = None
    ipv4_big_tcp: _BigTcp | None = None
    ipv6_big_tcp: _BigTcp | None = None


class _Legacy(Fields):
    host_legacy_routing: Raw = field(default=Raw(), name="EnableHostLegacyRouting")


class _Daemon(_Legacy):
    """Of any type: these are Go's names of struct fields, no API."""

    ipv4: Raw = field(default=Raw(), name="EnableIPv4BIGTCP")
    ipv6: Raw = field(default=Raw(), name="EnableIPv6BIGTCP")
    routing_mode: Raw = field(default=Raw(), name="RoutingMode")
    tunnel: Raw = field(default=Raw(), name="Tunnel")
    datapath_mode: Raw = field(default=Raw(), name="DatapathMode")
    bpf_masquerade: Raw = field(default=Raw(), name="EnableBPFMasquerade")
    ipsec: Raw = field(default=Raw(), name="EnableIPSec")
    wireguard: Raw = field(default=Raw(), name="EnableWireguard")
    # By 1.20 EnableHostLegacyRouting stands in a struct of fields to avoid.
    unsafe: Raw = field(default=Raw(), name="UnsafeDaemonConfigOption")


class _ConfigStatus(Fields):
    daemon: _Daemon | None = field(default=None, name="daemonConfigurationMap")
    datapath_mode: Text = field(default=None, name="datapathMode")
    device_mtu: Number = field(default=None, name="deviceMTU")
    gso_max: Number = field(default=None, name="GSOMaxSize")
    gro_max: Number = field(default=None, name="GROMaxSize")
    gso_ipv4_max: Number = field(default=None, name="GSOIPv4MaxSize")
    gro_ipv4_max: Number = field(default=None, name="GROIPv4MaxSize")


class Config(Fields):
    """/v1/config: DaemonConfiguration."""

    status: _ConfigStatus | None = None


class _Addresses(Fields):
    ipv4: Text = None
    ipv6: Text = None


class _Networking(Fields):
    addressing: Annotated[list[_Addresses | None], _Few] | None = None
    interface_index: Ifindex = None
    interface_name: Text = None


class _Identity(Fields):
    labels: Texts = None


class _Labels(Fields):
    security_relevant: Texts = None
    derived: Texts = None


class _Identifiers(Fields):
    k8s_namespace: Text = None
    k8s_pod_name: Text = None
    pod_name: Text = None


class _Controller(Fields):
    name: Text = None


class _EndpointStatus(Fields):
    networking: _Networking | None = None
    identity: _Identity | None = None
    labels: _Labels | None = None
    external_identifiers: _Identifiers | None = None
    controllers: Annotated[list[_Controller | None], _Few] | None = None


class ToldEndpoint(Fields):
    """One of /v1/endpoint: Endpoint."""

    id: Number = None
    status: _EndpointStatus | None = None


class _StoredEndpoint(Fields):
    id: Number = field(default=None, name="ID")
    ifindex: Ifindex = field(default=None, name="IfIndex")
    interface: Text = field(default=None, name="IfName")
    ipv4: Text = field(default=None, name="IPv4")
    ipv6: Text = field(default=None, name="IPv6")
    namespace: Text = field(default=None, name="K8sNamespace")
    pod: Text = field(default=None, name="K8sPodName")


_Bounded = msgspec.Meta(max_length=_MAX_ENDPOINTS)
_Endpoints = Annotated[list[ToldEndpoint | None], _Bounded] | None
_RawEndpoints = Annotated[list[Raw], _Bounded] | None


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
        health = decode(server.get("/v1/healthz"), Health, "Cilium's /v1/healthz")
    except FileNotFoundError:
        return None
    try:
        config = decode(server.get("/v1/config"), Config, "Cilium's /v1/config")
        told = decode_endpoints(server.get("/v1/endpoint"))
    except FileNotFoundError as err:  # it was there just now
        raise OSError("Cilium's socket went away while it was asked") from err
    found = applied(health, config, told, wall())
    directory = _state(socket_path)
    endpoints = tuple(_named(each, directory) for each in found.endpoints)
    return replace(found, endpoints=endpoints)


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
    found = (_stored_endpoint(directory, number) for number in ids[:_MAX_ENDPOINTS])
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


def read_runtime_config(path: str) -> DaemonConfig | None:
    """With which flags the Cilium agent was started; None where there is no file.

    It is option.DaemonConfig.StoreInFile of pkg/option/config.go. OSError where
    it cannot be read or is not that.
    """
    try:
        data = _read_file(path, MAX_ANSWER_BYTES)
    except FileNotFoundError:
        return None
    return _daemon_config(decode(data, _Daemon, path))


def decode_endpoints(data: bytes | bytearray) -> list[ToldEndpoint]:
    """Decode /v1/endpoint. What makes no sense in it is left out; OSError where all
    of it makes none.
    """
    giver = "Cilium's /v1/endpoint"
    try:
        told: list[ToldEndpoint | None] = decode(data, _Endpoints, giver) or []  # type: ignore[arg-type]
    except OSError:
        if data.count(b",") > _MAX_COMMAS:
            raise
        raws: list[Raw] = decode(data, _RawEndpoints, giver) or []  # type: ignore[arg-type]
        told = [_lenient(raw, ToldEndpoint) for raw in raws]
    return [endpoint for endpoint in told if endpoint]


def applied(
    health: Health, answer: Config, endpoints: list[ToldEndpoint], read: float
) -> Applied:
    """Join the answers of /v1/healthz, /v1/config and /v1/endpoint."""
    config = answer.status or _ConfigStatus()
    cilium = health.cilium or _Status()
    told = printable(cilium.msg)
    message = _MESSAGE.fullmatch(told)
    replacement = health.kube_proxy_replacement or _Replacement()
    node_port = (replacement.features or _Features()).node_port or _NodePort()
    routing = health.routing or _Routing()
    daemon = _daemon_config(config.daemon or _Daemon())
    # The unmarked sizes are IPv6's, as in the kernel.
    pod_sizes = {
        Family.IPV4: PodSizes(config.gso_ipv4_max or 0, config.gro_ipv4_max or 0),
        Family.IPV6: PodSizes(config.gso_max or 0, config.gro_max or 0),
    }
    told_big_tcp = {
        Family.IPV4: health.ipv4_big_tcp,
        Family.IPV6: health.ipv6_big_tcp,
    }
    # 1.16 moved host-routing.mode to routing.intra-host-routing-mode, and says
    # there for the first time how packets leave the host.
    return Applied(
        read=read,
        version=message[1] if message else "",
        state=printable(cilium.state),
        message=(message[2] or "") if message else told,
        big_tcp={
            family: _big_tcp(told_big_tcp[family], daemon, family, sizes)
            for family, sizes in pod_sizes.items()
        },
        pod_sizes=pod_sizes,
        devices=tuple(map(printable, replacement.devices or ())),
        kube_proxy_replacement=printable(replacement.mode),
        host_routing=printable(routing.intra_host_routing_mode)
        or _mode(health.host_routing),
        masquerading=_mode(health.masquerading),
        routing_mode=printable(routing.inter_host_routing_mode).lower()
        or daemon.routing_mode,
        tunnel_protocol=printable(routing.tunnel_protocol),
        encryption=_mode(health.encryption),
        datapath_mode=printable(config.datapath_mode or health.datapath_mode),
        attach_mode=printable(health.attach_mode),
        cni_chaining=_mode(health.cni_chaining),
        load_balancer_mode=printable(node_port.mode),
        dsr_dispatch=printable(node_port.dsr_mode),
        device_mtu=config.device_mtu or 0,
        config=daemon,
        endpoints=tuple(map(_endpoint, endpoints)),
    )


def canonical(address: str | None) -> str | None:
    """An IP address as ipaddress writes it; None where it is none."""
    try:
        return str(ipaddress.ip_address(address or ""))
    except ValueError:
        return None


def _mode(told: _Mode | None) -> str:
    return printable(told.mode) if told else ""


def _big_tcp(
    told: _BigTcp | None, daemon: DaemonConfig, family: Family, sizes: PodSizes
) -> BigTcp:
    if told is None:
        # Old versions' status does not mention it. Devices and pods got the same.
        enabled = daemon.big_tcp.get(family, False)
        return BigTcp(enabled, sizes.gso_max, sizes.gro_max)
    return BigTcp(bool(told.enabled), told.max_gso or 0, told.max_gro or 0)


def _lenient(raw: Raw, kind: type[T]) -> T | None:
    """None where it is of another type, or absent."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _daemon_config(fields: _Daemon) -> DaemonConfig:
    def text(raw: Raw) -> str:
        return printable(_lenient(raw, Text))  # type: ignore[arg-type]

    unsafe = _lenient(fields.unsafe, _Legacy) or _Legacy()
    legacy = _lenient(unsafe.host_legacy_routing, bool)
    big_tcp = {
        Family.IPV4: _lenient(fields.ipv4, bool),
        Family.IPV6: _lenient(fields.ipv6, bool),
    }
    # 1.13 had one field, Tunnel, for both mode and protocol.
    tunnel = {"": "", "disabled": "native"}.get(text(fields.tunnel), "tunnel")
    return DaemonConfig(
        big_tcp={family: on for family, on in big_tcp.items() if on is not None},
        routing_mode=text(fields.routing_mode) or tunnel,
        datapath_mode=text(fields.datapath_mode),
        host_legacy_routing=_lenient(fields.host_legacy_routing, bool)
        if legacy is None
        else legacy,
        bpf_masquerade=_lenient(fields.bpf_masquerade, bool),
        ipsec=_lenient(fields.ipsec, bool),
        wireguard=_lenient(fields.wireguard, bool),
    )


def _endpoint(told: ToldEndpoint) -> Endpoint:
    status = told.status or _EndpointStatus()
    networking = status.networking or _Networking()
    interface = printable(networking.interface_name)
    labels = _labels(status)
    namespace, pod = _identifiers(status) or _resolved(status, labels) or ("", "")
    ifindex = networking.interface_index or 0
    addresses = (
        address
        for pair in networking.addressing or ()
        if pair
        for address in (pair.ipv4, pair.ipv6)
    )
    return Endpoint(
        id=told.id or 0,
        ifindex=ifindex,
        interface=interface,
        addresses=_addresses(addresses),
        namespace=namespace,
        pod=pod,
        is_pod=bool(pod)
        or (
            ifindex > 0
            and not _NO_PODS & labels
            and not interface.startswith(OWN_DEVICES)
        ),
    )


def _addresses(told: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(filter(None, map(canonical, told)))


def _labels(status: _EndpointStatus) -> set[str]:
    """Of its identity, and those that may not have led to one yet."""
    identity = status.identity or _Identity()
    labels = status.labels or _Labels()
    lists = (identity.labels, labels.security_relevant, labels.derived)
    return {printable(label) for each in lists for label in each or ()}


def _identifiers(status: _EndpointStatus) -> tuple[str, str] | None:
    """Namespace and pod, up to Cilium 1.19: 1.20 does not fill them any more
    (getModelEndpointIdentitiersRLocked in pkg/endpoint/api.go).
    """
    told = status.external_identifiers or _Identifiers()
    # k8s-namespace and k8s-pod-name stand beside the older pod-name "ns/pod".
    older = printable(told.pod_name).partition("/")
    pod = printable(told.k8s_pod_name) or older[2]
    return (printable(told.k8s_namespace) or older[0], pod) if pod else None


def _resolved(status: _EndpointStatus, labels: set[str]) -> tuple[str, str] | None:
    """Namespace and pod as a controller's name has them, and a label confirms."""
    names = {
        (match[1], match[2])
        for controller in status.controllers or ()
        if controller
        and (match := _RESOLVE_LABELS.fullmatch(printable(controller.name)))
        and _NAMESPACE_LABEL + match[1] in labels
    }
    return names.pop() if len(names) == 1 else None


def _state(socket_path: str) -> str:
    return os.path.join(os.path.dirname(socket_path), STATE)


def _named(endpoint: Endpoint, directory: str) -> Endpoint:
    """A pod whose name the answer does not tell gets the one that Cilium has stored."""
    if endpoint.pod or not endpoint.is_pod:
        return endpoint
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
        data = _read_file(path, _MAX_ENDPOINT_BYTES)
        stored = decode(data, _StoredEndpoint, path)
    except OSError:
        return None
    ifindex, pod = stored.ifindex or 0, printable(stored.pod)
    return Endpoint(
        id=stored.id or 0,
        ifindex=ifindex,
        interface=printable(stored.interface),
        addresses=_addresses((stored.ipv4, stored.ipv6)),
        namespace=printable(stored.namespace),
        pod=pod,
        is_pod=bool(pod) and ifindex > 0,
    )


def _read_file(path: str, most: int) -> bytes:
    """A regular file of at most `most` bytes. OSError where it is longer, or no regular
    file: none is waited for.
    """
    with open_regular_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(f"{path} is longer than {most:,} bytes")
    return data
