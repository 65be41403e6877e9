# SPDX-License-Identifier: Apache-2.0
"""How Cilium moves packets, as far as BIG TCP hangs on it. Pure."""

import re
from dataclasses import dataclass, replace

from agent.snapshot.cilium import Applied, DaemonConfig, Wanted


@dataclass(frozen=True, slots=True)
class Datapath:
    """Cilium's own words, as in Applied; "" where nobody says. `release` is that of
    the Cilium agent, (1, 19) for 1.19.2; None where nobody says.
    """

    release: tuple[int, int] | None = None
    host_routing: str = ""
    masquerading: str = ""
    kube_proxy_replacement: str = ""
    routing_mode: str = ""
    encryption: str = ""
    dsr_dispatch: str = ""

    @property
    def replaces_kube_proxy(self) -> bool:
        """Does eBPF do all of kube-proxy's work?"""
        return self.kube_proxy_replacement in ("True", "Strict")

    def before(self, major: int, minor: int) -> bool:
        """Is Cilium known to be older than this?"""
        return self.release is not None and self.release < (major, minor)


def as_it_runs(applied: Applied) -> Datapath:
    """What the Cilium agent says of itself."""
    return Datapath(
        _release(applied.version),
        applied.host_routing,
        applied.masquerading,
        applied.kube_proxy_replacement,
        applied.routing_mode,
        applied.encryption,
        applied.dsr_dispatch,
    )


def as_it_would_start(
    applied: Applied | None, runtime: DaemonConfig | None, wanted: Wanted | None
) -> Datapath:
    """Where the Cilium agent does not answer: its last words or the file that it left
    behind, and above both the configuration that it starts with. One that refuses
    its configuration answers nobody, and leaves the file of an earlier start.
    """
    datapath = as_it_runs(applied) if applied else Datapath()
    if runtime is not None:
        datapath = _as_left_behind(runtime, datapath)
    if wanted is not None and wanted.found:
        datapath = _as_configured(wanted, datapath)
    return datapath


def _release(version: str) -> tuple[int, int] | None:
    # So many digits and no more: int() refuses what is very long.
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.|$)", version)
    return (int(found[1]), int(found[2])) if found else None


def _as_left_behind(config: DaemonConfig, before: Datapath) -> Datapath:
    encrypted = {"IPsec": config.ipsec, "Wireguard": config.wireguard}
    encryption = next((name for name, on in encrypted.items() if on), "")
    return replace(
        before,
        host_routing="Legacy" if config.host_legacy_routing else before.host_routing,
        routing_mode=config.routing_mode or before.routing_mode,
        encryption=encryption or before.encryption,
    )


def _as_configured(wanted: Wanted, before: Datapath) -> Datapath:
    """An absent key has Cilium's default; where that is a fallback (host routing), or
    the chart always writes the key, what was said before is better.
    """
    values, flag = wanted.values, wanted.flag
    host_routing = before.host_routing
    if "enable-host-legacy-routing" in values:
        host_routing = "Legacy" if flag("enable-host-legacy-routing") else ""
    masquerading = before.masquerading
    if flag("enable-ipv4-masquerade") or flag("enable-ipv6-masquerade"):
        masquerading = "BPF" if flag("enable-bpf-masquerade") else "iptables"
    encrypted = {"IPsec": "enable-ipsec", "Wireguard": "enable-wireguard"}
    return replace(
        before,
        host_routing=host_routing,
        masquerading=masquerading,
        kube_proxy_replacement=values.get("kube-proxy-replacement", "").capitalize()
        or before.kube_proxy_replacement,
        routing_mode=_routing_mode(values) or before.routing_mode,
        encryption=next((name for name, key in encrypted.items() if flag(key)), ""),
        dsr_dispatch=values.get("bpf-lb-dsr-dispatch", ""),
    )


def _routing_mode(values: dict[str, str]) -> str:
    """`tunnel`, up to Cilium 1.14, named mode and protocol in one."""
    older = {"": "", "disabled": "native"}.get(values.get("tunnel", ""), "tunnel")
    return values.get("routing-mode", older)
