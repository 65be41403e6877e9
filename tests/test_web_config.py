# SPDX-License-Identifier: Apache-2.0
"""`run --web-config`: an agent that asks who is there, and who comes all the same."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from agent import inquiry
from agent.settings import Cluster
from tests.process import COMMAND, agent, fetch
from tests.server import pki
from tests.server.test_web_config import HASH

TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
USERS = f"basic_auth_users: {{me: {HASH}}}\n"


def config(folder: Path, text: str) -> str:
    pki.authority(folder)
    pki.certificate(folder, "server")
    (folder / "web.yaml").write_text(text)
    return str(folder / "web.yaml")


def test_an_agent_with_passwords(tmp_path: Path) -> None:
    with agent("--web-config", config(tmp_path, USERS)) as (_, address):
        for page in ("metrics", "api/snapshot", ""):
            assert fetch(f"{address}/{page}")[0] == 401
        assert fetch(f"{address}/livez") == (200, "ok\n")
        status, said = fetch(f"{address}/metrics", "me:secret")
        assert status == 200
        assert "bigtcp_build_info" in said


@pytest.fixture
def logging() -> Iterator[None]:
    """As it was: who looks by itself silences it, for as long as its process lives."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging")
@pytest.mark.parametrize("text", [USERS, TLS])
def test_check_looks_itself_where_the_agent_of_this_node_is_shut(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--web-config", config(tmp_path, text))
    where = Cluster("", "", "", "kube-system", "cilium-config")
    with agent(*flags, secure=text == TLS) as (_, address):
        plain = address.replace("https:", "http:")
        monkeypatch.setattr(inquiry, "LOCAL_AGENT", plain)
        with inquiry.asked(None, where) as asked:
            assert asked.who == "our own probes"
        with (
            pytest.raises(inquiry.UnreachableError, match="no agent answers at"),
            inquiry.asked(plain, where),
        ):
            pass


def test_a_bad_file_ends_it_with_one_sentence(tmp_path: Path) -> None:
    path = config(tmp_path, "basic_auth_users: {me: secret}")
    done = subprocess.run(
        [COMMAND, "run", "--web-config", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: --web-config {path}: the password of 'me' is not a bcrypt hash",
        "hint: see exporter-toolkit's docs/web-configuration.md for the format",
    ]
