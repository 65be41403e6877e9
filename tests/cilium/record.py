# SPDX-License-Identifier: Apache-2.0
"""Record what Cilium's own agent answers, for the tests that run without one.

    python -m tests.cilium.record [VERSION...]    (as root; or `make record-cilium`)

writes tests/sources/wire/VERSION/STATE.json for each version, by default for all of
`VERSIONS`. A recording has, beside the answers of /v1/healthz, /v1/config and
/v1/endpoint,

    recorded         by which Cilium and kernel, when, and what did not work
    runtime          state/agent-runtime-config.json
    state_directory  what the folder of each endpoint in state/ holds: names of files,
                     and the endpoint's state as the agent keeps it there

The endpoints are the host, two pods and, in the state `health` of the newest version,
that of Cilium's health checks. That of its ingress, made where `enable-envoy-config` is
on, is in none.

What changes with each run is replaced (`_NORMALIZED`), and what is long and read by
nobody is left out (`DROPPED`): so a new recording differs only where Cilium does.
"""

import base64
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.lab.netns import wait_until
from tests.cilium.node import SETTINGS, CiliumNode, cilium_node

# How an old agent was helped, see tests/cilium/node.py.
_HELP = {
    "1.15.19": "clang 19 with -Wno-shorten-64-to-32",
    "1.16.19": "clang 19 with -Wno-shorten-64-to-32",
}
VERSIONS = ("1.15.19", "1.16.19", "1.17.16", "1.18.6", "1.19.4", "1.20.2")
_HEALTH = ("enable_health_checking", "enable_endpoint_health_checking")
WIRE = Path(__file__).parent.parent / "sources/wire"
URLS = ("/v1/healthz", "/v1/config", "/v1/endpoint")

# By path of keys; "*" is every element of a list.
DROPPED = (
    "/v1/healthz bpf-maps",
    "/v1/healthz clock-source",
    "/v1/healthz controllers",
    "/v1/healthz identity-range",
    "/v1/healthz ipam",
    "/v1/healthz modules-health",
    "/v1/healthz proxy",
    "/v1/healthz kube-proxy-replacement features graceful-termination",
    "/v1/healthz kubernetes k8s-api-versions",
    "/v1/endpoint * spec",
    "/v1/endpoint * status controllers * configuration",
    "/v1/endpoint * status controllers * status",
    "/v1/endpoint * status controllers * uuid",
    "/v1/endpoint * status log",
    "/v1/endpoint * status policy",
    "/v1/endpoint * status realized",
    "state_directory * state DNSHistory",
    "state_directory * state DNSRules",
    "state_directory * state DNSRulesV2",
    "state_directory * state DNSZombies",
    "state_directory * state OpLabels",
    "state_directory * state Options",
    "state_directory * state SecLabel",
)
# Values by key, wherever it stands.
_NORMALIZED = {
    "BootIDFile": "/proc/sys/kernel/random/boot_id",
    "CreationTime": "2026-01-01T00:00:00Z",
    "NetnsCookie": 0,
    "K8sUID": "00000000-0000-0000-0000-000000000000",
    "CiliumEndpointUID": "00000000-0000-0000-0000-000000000000",
    "last-probe": "2026-01-01T00:00:00Z",
    "SharedEncryptionKey": "",
}


def main(versions: list[str]) -> None:
    """Record these versions, and tell what did not work."""
    for version in versions or VERSIONS:
        with tempfile.TemporaryDirectory(prefix="bigtcp-cilium-") as folder:
            record(version, Path(folder), WIRE / version)


def record(version: str, folder: Path, into: Path) -> None:
    """Walk one node with that Cilium through all states, and write each."""
    into.mkdir(exist_ok=True)
    for old in into.glob("*.json"):
        old.unlink()
    with cilium_node(version, folder) as node:
        recorder = _Recorder(node, into)
        recorder.walk()


class _Recorder:
    def __init__(self, node: CiliumNode, into: Path) -> None:
        self._node = node
        self._into = into

    def walk(self) -> None:
        """All states, in the order that needs the fewest restarts."""
        node, state = self._node, self._state
        on = {"enable_ipv4_big_tcp": "true", "enable_ipv6_big_tcp": "true"}
        off = dict.fromkeys(on, "false")
        with_pods = node.start_pods
        state("off", off, pods=with_pods)
        state("on-old-pods", on)
        state("on", {}, pods=self._new_pods)
        if node.version.startswith(("1.15.", "1.16.", "1.17.", "1.18.")):
            # Without an API server these stay well for minutes: they ask it for its
            # version each 15 minutes, and trust the last watch until then.
            nowhere = {"write_cni_conf_when_ready": "/proc/05-cilium.conflist"}
            state("failure", nowhere, then=self._fail, ready=False)
            node.settings.pop("write-cni-conf-when-ready")
        else:
            state("failure", {}, then=self._lose_api_server)
        state("ipv4-only", on | {"enable_ipv6_big_tcp": "false"}, pods=self._new_pods)
        state("ipv6-only", on | {"enable_ipv4_big_tcp": "false"}, pods=self._new_pods)
        # Neither eBPF masquerading nor eBPF host routing is asked for: Cilium falls
        # back to iptables and to the legacy routing.
        state("legacy", on | {"enable_bpf_masquerade": "false"}, pods=self._new_pods)
        no_ipv6 = {
            "enable_bpf_masquerade": "true",
            "enable_ipv6": "false",
            "enable_ipv6_masquerade": "false",
            "enable_ipv6_big_tcp": "false",
            "k8s_require_ipv6_pod_cidr": "false",
        }
        state("ipv6-disabled", on | no_ipv6, pods=self._new_pods)
        if node.version == VERSIONS[-1]:
            health = dict.fromkeys(_HEALTH, "true")
            before = {key: SETTINGS[key.replace("_", "-")] for key in no_ipv6}
            pods, then = self._new_pods, self._wait_for_health
            state("health", before | on | health, pods=pods, then=then)

    def _new_pods(self) -> None:
        self._node.delete_pods()
        self._node.start_pods()

    def _state(
        self,
        name: str,
        settings: dict[str, str],
        *,
        pods: Callable[[], None] = lambda: None,
        then: Callable[[], None] = lambda: None,
        ready: bool = True,
    ) -> None:
        """Restart the agent with these settings and write what it answers, `ready` or
        not, and after `then`.
        """
        node = self._node
        node.stop()
        node.configure(**settings)
        node.launch()
        remark = ""
        try:
            if ready:
                node.wait_ready()
            pods()
            then()
        except (AgentError, OSError) as err:
            errors = re.findall(r'level=(?:error|fatal).* error="(.*?)"', node.log)
            remark = f"{err}; {errors[-1][:300] if errors else 'no error in its log'}"
        self._write(name, remark)
        sys.stderr.write(f"{node.version} {name}: {remark or 'recorded'}\n")

    def _lose_api_server(self) -> None:
        """Stop the API server, and wait until the agent says that it is not well."""
        node = self._node
        node.api.kill()

        try:
            self._fail()
            self._answers = {url: node.ask(url) for url in URLS}
        finally:
            node.api.serve()

    def _wait_for_health(self) -> None:
        def ready() -> bool:
            told = [each["status"] for each in self._node.ask("/v1/endpoint")]
            return any(
                status["networking"].get("interface-name") == "lxc_health"
                and status["state"] == "ready"
                for status in told
            )

        wait_until(ready, "the endpoint of Cilium's health checks", 120)

    def _fail(self) -> None:
        def failing() -> bool:
            with contextlib.suppress(OSError):  # it may have begun just now
                health = self._node.ask("/v1/healthz")
                return bool(health["cilium"]["state"] == "Failure")
            return False

        wait_until(failing, "Cilium to tell of a failure", 120)

    def _write(self, name: str, remark: str) -> None:
        node = self._node
        answers: dict[str, Any] = self.__dict__.pop("_answers", {})
        for url in URLS:
            with contextlib.suppress(OSError):
                answers.setdefault(url, node.ask(url))
        runtime = node.state_files() / "agent-runtime-config.json"
        if runtime.exists():
            answers["runtime"] = json.loads(runtime.read_text())
        answers["state_directory"] = _state_directory(node.state_files())
        for path in DROPPED:
            _drop(answers, path.split())
        _rename(answers)
        recorded = {
            "cilium": node.version,
            "kernel": os.uname().release,
            "date": datetime.now(UTC).date().isoformat(),
            "settings": {
                key: value
                for key, value in node.settings.items()
                if SETTINGS.get(key) != value
            },
            "remark": remark or _HELP.get(node.version, ""),
        }
        text = json.dumps({"recorded": recorded, **answers}, sort_keys=True)
        (self._into / f"{name}.json").write_text(_lines(json.loads(text)))


def _state_directory(folder: Path) -> dict[str, Any]:
    """Of each endpoint: its files, and its state. That is JSON in ep_config.json, and
    before 1.16 base64 in a comment of ep_config.h.
    """
    found = {}
    for endpoint in sorted(folder.glob("[0-9]*")):
        state = None
        if (endpoint / "ep_config.json").exists():
            state = json.loads((endpoint / "ep_config.json").read_text())
        elif (endpoint / "ep_config.h").exists():
            header = (endpoint / "ep_config.h").read_text()
            encoded = re.search(r"CILIUM_BASE64_[^:\s]*:([A-Za-z0-9+/=]+)", header)
            state = json.loads(base64.b64decode(encoded[1])) if encoded else None
        # Hidden ones are about to be written.
        files = sorted(path.name for path in endpoint.glob("[!.]*"))
        found[endpoint.name] = {"files": files, "state": state}
    return found


def _drop(found: Any, path: list[str]) -> None:
    first, *rest = path
    if first == "*":
        children = found.values() if isinstance(found, dict) else found or ()
        for child in children:
            _drop(child, rest)
    elif isinstance(found, dict) and rest:
        _drop(found.get(first), rest)
    elif isinstance(found, dict):
        found.pop(first, None)


def _rename(answers: dict[str, Any]) -> None:
    """Give ids of endpoints and identities, devices and addresses names that do not
    differ from run to run: p1 is 1002 at 10.244.1.12, on lxc000000000002.
    """
    endpoints = answers.get("/v1/endpoint") or []
    endpoints.sort(key=_endpoint_name)
    states = answers["state_directory"]
    names: dict[str, str] = {}
    for number, endpoint in enumerate(endpoints, 1):
        state = states.pop(str(endpoint["id"]), None)
        names |= _rename_endpoint(endpoint, number)
        if state:
            states[str(endpoint["id"])] = state
            if state["state"]:
                state["state"]["ID"] = endpoint["id"]
    config = answers.get("/v1/config") or {}
    addressing = config.get("status", {}).get("addressing", {})
    for family, address in (("ipv4", "10.244.1.9"), ("ipv6", "fd00:244:1::9")):
        names[addressing.get(family, {}).get("ip", "")] = address
    names.pop("", None)
    for key, value in answers.items():
        answers[key] = _normalize(value, names)


def _endpoint_name(endpoint: dict[str, Any]) -> str:
    identifiers = endpoint["status"]["external-identifiers"]
    host = endpoint["status"]["networking"]["interface-name"]
    return str(identifiers.get("cni-attachment-id") or host)


def _rename_endpoint(endpoint: dict[str, Any], number: int) -> dict[str, str]:
    """Renumber an endpoint; texts that stand elsewhere, too, and what they become."""
    status = endpoint["status"]
    networking = status["networking"]
    old, endpoint["id"] = endpoint["id"], 1000 + number
    for controller in status.get("controllers") or ():
        controller["name"] = re.sub(
            rf"(?<![\w/.]){old}(?![\w/.])", str(1000 + number), controller["name"]
        )
    if status.get("identity", {}).get("id", 0) > 255:  # others are the same everywhere
        status["identity"]["id"] = 20000 + number
    names: dict[str, str] = {}
    attached = status["external-identifiers"].get("cni-attachment-id", "")
    if attached:
        names[attached.partition(":")[0]] = f"{attached.partition('-')[0]}-container"
        names[networking["interface-name"]] = f"lxc{number:012x}"
    for place, key in enumerate(("mac", "host-mac"), 1):
        names[networking.get(key, "")] = f"5a:00:00:00:{number:02x}:{place:02x}"
    for pair in networking.get("addressing") or ():
        names[pair.get("ipv4", "")] = f"10.244.1.{10 + number}"
        names[pair.get("ipv6", "")] = f"fd00:244:1::{10 + number:x}"
    return names


_TEXTS = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-01-01T00:00:00Z"),
    (r"/proc/\d+/ns", "/proc/1/ns"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:6443"),
    (r"^fe80::[0-9a-f:]+", "fe80::1"),
)


def _normalize(value: Any, names: dict[str, str]) -> Any:
    """The same with these texts replaced, and what differs from run to run."""
    if isinstance(value, dict):
        return {
            key: _NORMALIZED.get(key, _normalize(inner, names))
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_normalize(inner, names) for inner in value]
    if isinstance(value, str):
        for old, new in names.items():
            value = re.sub(rf"(?<![\w.:]){re.escape(old)}(?![\w.])", new, value)
        for pattern, new in _TEXTS:
            value = re.sub(pattern, new, value)
    return value


def _lines(found: dict[str, Any]) -> str:
    """JSON with a line for each value two levels down: compact, and `git diff` shows
    what has changed.
    """
    parts = []
    for key, value in found.items():
        rows = value.items() if isinstance(value, dict) else None
        if rows is None:
            inner = ",\n".join(f"  {json.dumps(each)}" for each in value or ())
            parts.append(f" {json.dumps(key)}: [\n{inner}\n ]")
        else:
            inner = ",\n".join(_row(name, each) for name, each in rows)
            parts.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _row(name: str, value: Any) -> str:
    if name == "status" and isinstance(value, dict):
        inner = ",\n".join(
            f"   {json.dumps(key)}: {json.dumps(each)}" for key, each in value.items()
        )
        return f"  {json.dumps(name)}: {{\n{inner}\n  }}"
    return f"  {json.dumps(name)}: {json.dumps(value)}"


if __name__ == "__main__":
    main(sys.argv[1:])
