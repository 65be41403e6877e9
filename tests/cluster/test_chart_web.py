# SPDX-License-Identifier: Apache-2.0
"""TLS and passwords by the chart's values: the kubelet's probes, Prometheus' way in,
and a Secret that is renewed.
"""

import base64
import socket
import ssl
from pathlib import Path

from agent.lab.netns import wait_until
from tests.cluster import release as releases
from tests.cluster.cluster import Cluster
from tests.cluster.nodes import Node
from tests.cluster.release import NAMESPACE, Release
from tests.process import fetch
from tests.views import pki
from tests.views.test_webconfig import HASH

URL = "https://127.0.0.1:19715"


def secret(cluster: Cluster, folder: Path, name: str) -> None:
    """Make the Secret `tls` of a certificate, or renew it."""
    data = {
        key: base64.b64encode((folder / file).read_bytes()).decode()
        for key, file in (("tls.crt", f"{name}.crt"), ("tls.key", f"{name}.key"))
    }
    lines = "".join(f"  {key}: {value}\n" for key, value in data.items())
    cluster.kubectl(
        "apply",
        "--filename=-",
        text=f"apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\n"
        f"metadata: {{name: tls, namespace: {NAMESPACE}}}\ndata:\n{lines}",
    )


def shown(node: Node) -> str:
    """The certificate of a node's agent."""

    def ask() -> str:
        anyone = ssl._create_unverified_context()  # noqa: S323  it is what we look at
        with (
            socket.create_connection(("127.0.0.1", 19715), timeout=5) as plain,
            anyone.wrap_socket(plain) as encrypted,
        ):
            der = encrypted.getpeercert(binary_form=True)
        assert der
        return ssl.DER_cert_to_PEM_cert(der)

    return node.call(ask)


def starts(release: Release) -> dict[str, str]:
    """Since when the agents' pods are there, by node."""
    pods = release.pods()
    return {node: pod["status"]["startTime"] for node, pod in pods.items()}


def test_tls_and_passwords(stocked: Cluster, tmp_path: Path) -> None:
    pki.authority(tmp_path)
    for name in ("old", "new"):
        pki.certificate(tmp_path, name)
    login = "prometheus:secret"
    users = tmp_path / "users.yaml"
    users.write_text(f"web: {{basicAuthUsers: {{prometheus: {HASH}}}}}\n")
    with releases.installed(stocked, "helm4") as release:
        secret(stocked, tmp_path, "old")
        flags = ("--set=web.tls.secretName=tls", f"--values={users}")
        release.apply("upgrade", *flags)
        stocked.rolled_out(f"--namespace={NAMESPACE}", "daemonset/bigtcp-agent")
        for node in stocked.nodes:
            assert shown(node) == (tmp_path / "old.crt").read_text()
            assert node.call(lambda: fetch(f"{URL}/readyz"))[0] == 200
            assert node.call(lambda: fetch(f"{URL}/metrics"))[0] == 401
            status, text = node.call(lambda: fetch(f"{URL}/metrics", login))
            assert status == 200
            assert "bigtcp_build_info" in text
            assert release.check(node.name)[0] == 0
            assert release.who_checks(node.name) == "our own probes"
        assert "Succeeded" in release.run("test", "--timeout=60s")
        started = starts(release)
        secret(stocked, tmp_path, "new")
        new = (tmp_path / "new.crt").read_text()
        wait_until(
            lambda: all(shown(node) == new for node in stocked.nodes),
            "the kubelets to bring the new certificate",
            120,
        )
        assert starts(release) == started
        stocked.kubectl("delete", "secret", "tls", f"--namespace={NAMESPACE}")
