# SPDX-License-Identifier: Apache-2.0
"""TLS, passwords and clients' certificates by the chart's values: the kubelet's
probes, Prometheus' way in, and a Secret that is renewed.
"""

import base64
import json
import socket
import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.lab.netns import wait_until
from tests.cluster import operated
from tests.cluster import release as releases
from tests.cluster.cluster import Cluster
from tests.cluster.nodes import Node
from tests.cluster.prometheus import prometheus
from tests.cluster.release import NAME, NAMESPACE, Release
from tests.process import any_certificate, fetch
from tests.server import pki
from tests.server.test_web_config import HASH

URL = "https://127.0.0.1:19715"
LOGIN = "prometheus:secret"
USERS = {"prometheus": HASH}


def secret(cluster: Cluster, folder: Path, certificate: str, name: str = "tls") -> None:
    """Make a Secret of a certificate and its authority, or renew it."""
    files = {"tls.crt": f"{certificate}.crt", "tls.key": f"{certificate}.key"}
    data = {
        key: base64.b64encode((folder / file).read_bytes()).decode()
        for key, file in {**files, "ca.crt": "ca.crt"}.items()
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": data,
    }
    cluster.kubectl("apply", "--filename=-", text=json.dumps(manifest))


def shown(node: Node) -> str:
    """The certificate of a node's agent."""

    def ask() -> str:
        with (
            socket.create_connection(("127.0.0.1", 19715), timeout=60) as plain,
            any_certificate().wrap_socket(plain) as encrypted,
        ):
            der = encrypted.getpeercert(binary_form=True)
        assert der
        return ssl.DER_cert_to_PEM_cert(der)

    return node.call(ask)


def starts(release: Release) -> dict[str, str]:
    """Since when the agents' pods are there, by node."""
    pods = release.pods()
    return {node: pod["status"]["startTime"] for node, pod in pods.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With certificates."""
    made: Path = tmp_path_factory.mktemp("web")
    pki.authority(made)
    for name in ("old", "new", "prometheus"):
        pki.certificate(made, name)
    return made


@pytest.fixture(scope="module")
def release(stocked: Cluster) -> Iterator[Release]:
    with releases.installed(stocked, "helm4") as made:
        yield made


def upgrade(release: Release, folder: Path, values: dict[str, Any]) -> None:
    (folder / "values.yaml").write_text(json.dumps(values))
    release.apply("upgrade", f"--values={folder}/values.yaml")
    release.rolled_out()


def test_tls_and_passwords(release: Release, folder: Path) -> None:
    cluster = release.cluster
    secret(cluster, folder, "old")
    web = {"tls": {"secretName": "tls"}, "basicAuthUsers": USERS}
    upgrade(release, folder, {"web": web})
    for node in cluster.nodes:
        assert shown(node) == (folder / "old.crt").read_text()
        assert node.call(lambda: fetch(f"{URL}/readyz"))[0] == 200
        assert node.call(lambda: fetch(f"{URL}/metrics"))[0] == 401
        status, text = node.call(lambda: fetch(f"{URL}/metrics", LOGIN))
        assert status == 200
        assert "bigtcp_build_info" in text
        assert release.check(node.name)[0] == 0
        assert release.who_checks(node.name) == "our own probes"
    assert "Succeeded" in release.run("test", "--timeout=60s")
    started = starts(release)
    secret(cluster, folder, "new")
    new = (folder / "new.crt").read_text()
    wait_until(
        lambda: all(shown(node) == new for node in cluster.nodes),
        "the kubelets to bring the new certificate",
        120,
    )
    assert starts(release) == started
    release.kubectl("delete", "secret", "tls")


def test_certificates_of_clients(release: Release, folder: Path) -> None:
    """The kubelet has none and probes all the same; Prometheus has one, and all else
    that the chart's monitor tells it.
    """
    cluster = release.cluster
    secret(cluster, folder, "new")
    secret(cluster, folder, "prometheus", "client")
    name, _, password = LOGIN.partition(":")
    login = (f"--from-literal=name={name}", f"--from-literal=password={password}")
    release.kubectl("create", "secret", "generic", "login", *login)
    monitor = {
        "enabled": True,
        "tlsConfig": {
            "ca": {"secret": {"name": "tls", "key": "ca.crt"}},
            "cert": {"secret": {"name": "client", "key": "tls.crt"}},
            "keySecret": {"name": "client", "key": "tls.key"},
            "serverName": "localhost",
        },
        "basicAuth": {
            "username": {"name": "login", "key": "name"},
            "password": {"name": "login", "key": "password"},
        },
    }
    tls = {"secretName": "tls", "clientAuthType": "RequireAndVerifyClientCert"}
    values = {
        "agent": {"maxPods": 16},
        "web": {"tls": tls, "basicAuthUsers": USERS},
        "serviceMonitor": monitor,
    }
    upgrade(release, folder, values)
    for node in cluster.nodes:
        for probe in ("livez", "readyz"):
            assert node.call(partial(fetch, f"{URL}/{probe}"))[0] == 200
        assert node.call(lambda: fetch(f"{URL}/metrics", LOGIN))[0] == 403
    assert "Succeeded" in release.run("test", "--timeout=60s")
    scrape = operated.scrape_configs(release, folder, "endpointslice")
    with prometheus(cluster, folder, scrape) as server:
        up = f'up{{job="{NAME}",namespace="{NAMESPACE}",endpoint="metrics"}} == 1'

        def nodes() -> set[str]:
            return {each["metric"]["node"] for each in server.samples(up)}

        both = {node.name for node in cluster.nodes}
        wait_until(lambda: nodes() == both, "both agents to be scraped")
        pods = 'bigtcp_pod_skb_length_bytes_count{namespace="default",pod=~"netperf.*"}'

        def told() -> set[str]:
            cluster.netperf("ipv4")
            return {each["metric"]["node"] for each in server.samples(pods)}

        wait_until(lambda: told() == both, "the pods by their own names")
    release.kubectl("delete", "secret", "tls", "client", "login")
