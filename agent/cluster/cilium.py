# SPDX-License-Identifier: Apache-2.0
"""The Cilium agent of this node: its API on a unix socket, and its runtime file.

Names are those of Cilium's api/v1/models (status_response.go and others), of
1.13 to 1.20: what moved between versions is read in both places.
"""

import ipaddress
import os
import re
import time
from collections.abc import Callable

from agent.cluster.answer import Answer, parse, printable
from agent.cluster.unixhttp import UnixServer
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
RUNTIME_FILE = "state/agent-runtime-config.json"  # beside the socket
DEADLINE_SECONDS = 3.0
MAX_ANSWER_BYTES = 16 << 20
# cilium.msg is "1.16.0 (v1.16.0-REVISION)", then four spaces and why it is not
# Ok: getStatus in pkg/status/status_collector.go (1.15: daemon/cmd/status.go).
_MESSAGE = re.compile(r"v?(\d[^\s()]*)(?: \([^)]*\))?(?:\s+(.*))?", re.DOTALL)
_MAX_IFINDEX = (1 << 31) - 1


def read_applied(
    socket_path: str = DEFAULT_SOCKET,
    *,
    seconds: float = DEADLINE_SECONDS,
    most: int = MAX_ANSWER_BYTES,
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Applied | None:
    """Ask the Cilium agent; None where it has no socket.

    Three requests, in `seconds` together, each answered in `most` bytes. The
    socket is opened anew each time: a Cilium that restarts makes a new one.
    OSError, with a sentence, where the agent does not answer or writes what no
    Cilium would; endpoints that make no sense are left out instead.
    """
    server = UnixServer(socket_path, seconds, most, monotonic)
    try:
        health = Answer.parse(server.get("/v1/healthz"), "Cilium's /v1/healthz")
    except FileNotFoundError:
        return None
    try:
        config = Answer.parse(server.get("/v1/config"), "Cilium's /v1/config")
        endpoints = parse(server.get("/v1/endpoint"), "Cilium's /v1/endpoint")
    except FileNotFoundError as err:  # it was there just now
        raise OSError("Cilium's socket went away while it was asked") from err
    return applied(health, config.inner("status"), endpoints, wall())


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
        with open(path, "rb") as file:
            written = os.fstat(file.fileno()).st_mtime
            data = file.read(MAX_ANSWER_BYTES)
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
    identifiers = status.inner("external-identifiers")
    networking = status.inner("networking")
    # k8s-namespace and k8s-pod-name stand beside the older pod-name "ns/pod".
    older = identifiers.text("pod-name").partition("/")
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
        interface=networking.text("interface-name"),
        mac=networking.text("mac").lower(),
        host_mac=networking.text("host-mac").lower(),
        addresses=tuple(address for address in addresses if address),
        namespace=identifiers.text("k8s-namespace") or older[0],
        pod=identifiers.text("k8s-pod-name") or older[2],
    )
