# SPDX-License-Identifier: Apache-2.0
"""TLS and passwords: what the chart makes of its values, what it refuses, and that
`helm test` sees a door that stands open.
"""

import contextlib
import http.server
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.server.auth import read
from tests.chart import helm
from tests.process import serving
from tests.server import pki
from tests.server.test_web_config import HASH

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
TLS = "--set=web.tls.secretName=tls"
CERTIFICATES = "--set=web.tls.clientAuthType=RequireAndVerifyClientCert"
USERS = f"--set-string=web.basicAuthUsers.me={HASH}"
OWN = "--set=web.existingSecret=mine"


def test_the_web_config_is_the_agents(tmp_path: Path) -> None:
    """What the chart writes is what the agent reads."""
    objects = helm.template(f"--values={helm.CHART}/ci/secured-values.yaml")
    (text,) = helm.one(objects, "Secret")["stringData"].values()
    (tmp_path / "web.yaml").write_text(text)
    found = read(str(tmp_path / "web.yaml"))
    assert found.tls
    mounts = {
        mount["name"]: mount["mountPath"]
        for mount in helm.container(helm.one(objects, "DaemonSet"))["volumeMounts"]
    }
    assert found.tls.files == tuple(
        f"{mounts['tls']}/{name}" for name in ("tls.crt", "tls.key", "ca.crt")
    )
    assert list(found.users) == ["prometheus"]
    daemon = helm.one(objects, "DaemonSet")
    path = helm.environment(daemon)["BIGTCP_WEB_CONFIG"]
    assert path == f"{mounts['web']}/web-config.yaml"
    for probe in PROBES:
        assert helm.container(daemon)[probe]["httpGet"]["scheme"] == "HTTPS"


@pytest.mark.parametrize("version", helm.VERSIONS)
@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ([CERTIFICATES], "need web.tls.secretName"),
        (["--set=web.tls.minVersion=TLS13", USERS], "need web.tls.secretName"),
        ([OWN, TLS, USERS], "has a web config of its own"),
        ([OWN, TLS, CERTIFICATES], "has a web config of its own"),
        ([OWN], "needs web.scheme"),
        (["--set=web.scheme=https"], "web.scheme is for web.existingSecret"),
    ],
)
def test_what_would_be_left_out_is_refused(
    flags: list[str], why: str, version: str
) -> None:
    argv = ("template", "try", str(helm.CHART), "--kube-version=1.34.4", *flags)
    done = helm.run(version, *argv)
    assert done.returncode != 0
    assert why in done.stderr


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_secret_of_ones_own(scheme: str) -> None:
    """Nothing tells Helm what is in it, so the scheme is said."""
    objects = helm.template(OWN, f"--set=web.scheme={scheme}")
    assert not [each for each in objects if each["kind"] == "Secret"]
    container = helm.container(helm.one(objects, "DaemonSet"))
    for probe in PROBES:
        assert container[probe]["httpGet"]["scheme"] == scheme.upper()
    annotations = helm.one(objects, "Service")["metadata"]["annotations"]
    assert annotations["prometheus.io/scheme"] == scheme


def pod(*flags: str) -> helm.Object:
    """What a change of which starts the agents anew."""
    found: helm.Object = helm.one(helm.template(TLS, *flags), "DaemonSet")["spec"]
    return found


def test_what_asks_less_starts_the_agents_anew() -> None:
    """Nothing else of the web config does: it is taken up without."""
    assert len({str(pod(*flags)) for flags in ([], [USERS], [CERTIFICATES])}) == 3
    assert pod(USERS) == pod(f"--set-string=web.basicAuthUsers.you={HASH}")
    assert pod(USERS) == pod(USERS, "--set=web.tls.minVersion=TLS13")


COUNTING = 'bigtcp_probe_attached{hook="a"} 1.0\n'


@contextlib.contextmanager
def answering(status: int, text: str, tls: Path | None) -> Iterator[int]:
    """An agent's port, whose /metrics answers so to everybody."""

    class Agent(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield server.server_port


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    made = pki.authority(folder, "me")
    made.write_text(made.read_text() + (folder / "me.key").read_text())
    return made


@pytest.mark.parametrize(
    ("flags", "status", "text", "passes"),
    [
        ([], 200, COUNTING, True),
        ([], 200, COUNTING.replace("1.0", "0.0"), False),
        ([], 200, "", False),
        ([], 401, "", False),
        ([USERS], 401, "", True),
        ([USERS], 200, COUNTING, False),
        ([TLS], 200, COUNTING, True),
        ([TLS, CERTIFICATES], 403, "", True),
        ([TLS, CERTIFICATES, USERS], 401, "", False),
        ([TLS, CERTIFICATES], 200, COUNTING, False),
        ([OWN, "--set=web.scheme=http"], 200, COUNTING, True),
        ([OWN, TLS], 401, "", True),
        ([OWN, TLS], 503, "", False),
    ],
)
def test_the_hook_of_helm_test(
    certificate: Path, flags: list[str], status: int, text: str, *, passes: bool
) -> None:
    tls = certificate if TLS in flags else None
    with answering(status, text, tls) as port:
        objects = helm.template(*flags, f"--set=agent.port={port}")
        (container,) = helm.one(objects, "Pod")["spec"]["containers"]
        done = subprocess.run(
            [sys.executable, *container["command"][1:]],
            env=os.environ | {"HOST_IP": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode == 0) is passes, done.stderr
    assert "Traceback" not in done.stderr
