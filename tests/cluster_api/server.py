# SPDX-License-Identifier: Apache-2.0
"""A real etcd and kube-apiserver on loopback, with an admin and an agent."""

import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from agent.lab.netns import Namespace, wait_until, with_us
from tests.process import free_ports

_CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
BIN = Path(_CACHE, "bigtcp-agent", "cluster", "bin")
# By token: name and group. The agent is an account of the chart's.
ACCOUNT = "agent"
USERS = {
    "admin": ("admin", "system:masters"),
    "agent": (f"system:serviceaccount:agents:{ACCOUNT}", ""),
    "stranger": ("stranger", ""),
}


class ApiServer:
    """Made by `start`, gone with `stop`; `kill` and `serve` may come in between.

    Without `cached` watches are etcd's own: a compacted version is gone at once.
    `program` is the cluster's, or that of another version. With `within` both
    servers and kubectl run in that network namespace.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cached: bool = True,
        program: str = "kube-apiserver",
        within: Namespace | None = None,
    ) -> None:
        self.folder = folder
        self.program = program
        self._within = within
        self._cached = str(cached).lower()
        self._etcd_port, self._peer_port, self.port = free_ports(3)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for program in ("etcd", self.program, "kubectl"):
            if not (BIN / program).exists():
                pytest.fail(f"{BIN / program} is missing: tests/cluster/tools --all")
        key = self.folder / "account.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True)
        (self.folder / "tokens.csv").write_text(
            "".join(
                f"{token}-token,{name},{token},{group}\n"
                for token, (name, group) in USERS.items()
            )
        )
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        self._etcd = self._run(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer_port}",
            "--unsafe-no-fsync",
        )
        self.serve()

    def serve(self) -> None:
        """Start the API server; returns when it is ready."""
        self._server = self._run(
            self.program,
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # nobody comes by a Service
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder}/certs",
            f"--token-auth-file={self.folder}/tokens.csv",
            f"--service-account-key-file={self.folder}/account.key",
            f"--service-account-signing-key-file={self.folder}/account.key",
            "--service-account-issuer=https://127.0.0.1",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--allow-privileged",
            "--disable-admission-plugins=ServiceAccount",  # nobody makes accounts
            f"--watch-cache={self._cached}",
        )
        wait_until(self._ready, "the API server")

    def kill(self) -> None:
        assert self._server
        self._server.kill()
        self._server.wait()

    def stop(self) -> None:
        for process in (self._server, self._etcd):
            if process:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def kubeconfig(self, user: str) -> Path:
        server = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": f"{self.folder}/certs/apiserver.crt",
        }
        path = self.folder / f"{user}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": server}],
                    "users": [{"name": "u", "user": {"token": f"{user}-token"}}],
                    "contexts": [
                        {"name": "x", "context": {"cluster": "c", "user": "u"}}
                    ],
                    "current-context": "x",
                }
            )
        )
        return path

    def kubectl(self, line: str, *more: str, manifest: Any = None) -> str:
        """As admin; `manifest` is an object, or text, for `-f -`."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        done = subprocess.run(
            self._command(
                str(BIN / "kubectl"),
                f"--kubeconfig={self.kubeconfig('admin')}",
                *line.split(),
                *more,
            ),
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def compact(self) -> None:
        """Let etcd forget every version but the newest."""
        revision = self._etcd_says("range", {"key": "AA=="})["header"]["revision"]
        self._etcd_says("compaction", {"revision": revision, "physical": True})

    def _etcd_says(self, what: str, question: Any) -> Any:
        url = f"http://127.0.0.1:{self._etcd_port}/v3/kv/{what}"
        body = json.dumps(question).encode()
        with urllib.request.urlopen(url, body, timeout=60) as answer:
            return json.load(answer)

    def _run(self, program: str, *argv: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                self._command(str(BIN / program), *argv), stdout=log, stderr=log
            )

    def _command(self, *argv: str) -> list[str]:
        return self._within.command(*argv) if self._within else with_us(*argv)

    def _ready(self) -> bool:
        assert self._server
        if self._server.poll() is not None:
            log = (self.folder / f"{self.program}.log").read_text()
            raise AssertionError(log[-2000:])
        return self._within.call(self._answers) if self._within else self._answers()

    def _answers(self) -> bool:
        try:
            trust = ssl.create_default_context(
                cafile=f"{self.folder}/certs/apiserver.crt"
            )
            with urllib.request.urlopen(
                f"https://127.0.0.1:{self.port}/readyz", timeout=5, context=trust
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
