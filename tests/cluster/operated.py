# SPDX-License-Identifier: Apache-2.0
"""The Prometheus operator's part, as far as the chart asks for it: scrape
configurations from a ServiceMonitor, groups of rules from a PrometheusRule.

As in the operator's promcfg.go: labels of the target first, then the monitor's own
relabelings; what is in Secrets becomes files. What is not translated is refused.
"""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.release import NAME, Release

Object = dict[str, Any]
_SPEC = {"jobLabel", "namespaceSelector", "selector", "sampleLimit", "endpoints"}
_ENDPOINT = {"port", "scheme", "honorLabels", "relabelings", "tlsConfig", "basicAuth"}
_TLS = {"ca", "cert", "keySecret", "serverName"}


def groups(release: Release) -> list[Object]:
    """Of the release's rules."""
    found: list[Object] = _object(release, "prometheusrule", NAME)["spec"]["groups"]
    return found


def scrape_configs(
    release: Release, folder: Path, role: str = "endpoints"
) -> list[Object]:
    """Of the release's monitor; secrets are written to the folder. `role`: of the
    discovery, or "endpointslice", as the operator is told by Prometheus' own object.
    """
    monitor = _object(release, "servicemonitor", NAME)
    spec = monitor["spec"]
    assert set(spec) <= _SPEC
    secrets = _Secrets(release, folder)
    return [
        _scrape_config(spec, number, endpoint, secrets, role)
        for number, endpoint in enumerate(spec["endpoints"])
    ]


@dataclass(frozen=True)
class _Secrets:
    """Those of the monitor's namespace."""

    release: Release
    folder: Path

    def text(self, ref: dict[str, str]) -> str:
        data = _object(self.release, "secret", ref["name"])["data"]
        return base64.b64decode(data[ref["key"]]).decode()

    def file(self, ref: dict[str, str]) -> str:
        path = self.folder / f"{ref['name']}-{ref['key']}"
        path.write_text(self.text(ref))
        return str(path)


def _object(release: Release, kind: str, name: str) -> Object:
    found: Object = json.loads(release.kubectl("get", kind, name, "--output=json"))
    return found


def _scrape_config(
    spec: Object, number: int, endpoint: Object, secrets: _Secrets, role: str
) -> Object:
    assert set(endpoint) <= _ENDPOINT
    config = {
        "job_name": f"serviceMonitor/{NAME}/{number}",
        "kubernetes_sd_configs": [
            {
                "role": role,
                "kubeconfig_file": str(secrets.release.cluster.kubeconfig),
                "namespaces": {"names": spec["namespaceSelector"]["matchNames"]},
            }
        ],
        "scheme": endpoint["scheme"],
        "honor_labels": endpoint["honorLabels"],
        "sample_limit": spec.get("sampleLimit", 0),
        "relabel_configs": [
            *_labels_of_the_target(spec, endpoint["port"], role),
            *(
                {_snake(key): value for key, value in each.items()}
                for each in endpoint["relabelings"]
            ),
        ],
    }
    if tls := endpoint.get("tlsConfig"):
        assert set(tls) <= _TLS
        config["tls_config"] = {
            "ca_file": secrets.file(tls["ca"]["secret"]),
            "server_name": tls["serverName"],
        }
        if "cert" in tls:
            config["tls_config"] |= {
                "cert_file": secrets.file(tls["cert"]["secret"]),
                "key_file": secrets.file(tls["keySecret"]),
            }
    if login := endpoint.get("basicAuth"):
        config["basic_auth"] = {
            "username": secrets.text(login["username"]),
            "password_file": secrets.file(login["password"]),
        }
    return config


def _labels_of_the_target(spec: Object, port: str, role: str) -> list[Object]:
    def keep(source: str, value: str) -> Object:
        return {
            "action": "keep",
            "source_labels": [f"__meta_kubernetes_{source}"],
            "regex": re.escape(value),
        }

    def label(target: str, source: str) -> Object:
        return {
            "source_labels": [f"__meta_kubernetes_{source}"],
            "regex": "(.+)",
            "target_label": target,
        }

    return [
        *(
            keep(f"service_label_{_meta(name)}", value)
            for name, value in spec["selector"]["matchLabels"].items()
        ),
        keep(f"{role.removesuffix('s')}_port_name", port),
        label("namespace", "namespace"),
        label("service", "service_name"),
        label("pod", "pod_name"),
        label("container", "pod_container_name"),
        label("job", "service_name"),
        label("job", f"service_label_{_meta(spec['jobLabel'])}"),
        {"target_label": "endpoint", "replacement": port},
    ]


def _meta(name: str) -> str:
    """A label's name as Prometheus' discovery writes it."""
    return re.sub(r"\W", "_", name)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)
