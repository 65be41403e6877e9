# SPDX-License-Identifier: Apache-2.0
"""Certificates, passwords and tokens that are replaced while the agent is attacked, as
Kubernetes replaces them: the new ones are good within seconds, the old ones no more.
"""

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bcrypt

from agent.lab.netns import wait_until
from tests.attacks.clients import Attack
from tests.attacks.harness import ATTACKERS, Answer, Victim, attacked_agent
from tests.attacks.test_inputs import ENDLESS, Send, api_server, tls
from tests.server import pki

SECONDS = 5.0
ATTACKS = (
    Attack("big_heads", 60, 32, sources=ATTACKERS[:1]),
    Attack("ask", 60, 200, 300, sources=ATTACKERS[1:2]),
    Attack("ask", 60, 8, 20, sources=ATTACKERS[2:6], path="/metrics", login="me:no{}"),
)
API_PORT = 6443
WEB = """
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
basic_auth_users: {{me: {hash}}}
"""


class Mount:
    """A volume as the kubelet writes it: names -> ..data/NAME, ..data -> a version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def version(self, name: str) -> Path:
        """A new folder, which nobody sees yet."""
        made = self.folder / f"..{name}"
        made.mkdir()
        return made

    def show(self, version: Path) -> None:
        """In one step, all files of it."""
        for file in version.iterdir():
            if not (self.folder / file.name).is_symlink():
                (self.folder / file.name).symlink_to(f"..data/{file.name}")
        (self.folder / "..data_tmp").symlink_to(version.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")


def web_version(mount: Mount, name: str) -> Path:
    """With an authority, a server, a client and a password (NAME) of its own."""
    folder = mount.version(name)
    pki.authority(folder)
    for who in ("server", "client"):
        pki.certificate(folder, who)
    hashed = bcrypt.hashpw(name.encode(), bcrypt.gensalt(4)).decode()
    (folder / "web.yaml").write_text(WEB.format(hash=hashed))
    return folder


def trusting(server: Path, client: Path) -> ssl.SSLContext:
    """Of a client of one version, which believes in the authority of one."""
    context = ssl.create_default_context(cafile=str(server / "ca.crt"))
    context.check_hostname = False  # it is for localhost
    context.load_cert_chain(client / "client.crt", client / "client.key")
    return context


def soon(victim: Victim, path: str = "/metrics") -> Answer:
    """The right answer, within seconds."""
    answers: list[Answer] = []

    def right() -> bool:
        answers.append(victim.get(path))
        return answers[-1].status == 200

    wait_until(right, "the new one to be good", SECONDS)
    return answers[-1]


@contextlib.contextmanager
def two_versions(folder: Path) -> Iterator[tuple[Mount, Path, Path, Victim]]:
    """An agent with the old version of its mount, and a client that has its part."""
    mount = Mount(folder / "web")
    old, new = (web_version(mount, name) for name in ("old", "new"))
    mount.show(old)
    flags = ("--web-config", str(mount.folder / "web.yaml"))
    context = trusting(old, old)
    with attacked_agent(*flags, secure=True, login="me:old", context=context) as before:
        yield mount, old, new, before


def test_certificates_and_password(tmp_path: Path) -> None:
    """All at once, behind a symbolic link: never a mixture of both."""
    with two_versions(tmp_path) as (mount, old, new, before):
        after = replace(before, login="me:new", context=trusting(new, new))
        with before.attacked(*ATTACKS):
            assert soon(before).status == 200
            assert after.get("/metrics").status == 0
            mount.show(new)
            assert "bigtcp_build_info{" in soon(after).text
            # The old certificate is not shown, the old password opens nothing, the
            # old authority speaks for nobody.
            assert "CERTIFICATE_VERIFY_FAILED" in before.get("/livez").text
            assert replace(after, login="me:old").get("/metrics").status == 401
            old_client = replace(after, context=trusting(new, old)).get("/metrics")
            assert old_client.status in (0, 403)
            assert after.get("/livez").text == "ok\n"


def test_a_mount_that_is_broken_for_a_moment(tmp_path: Path) -> None:
    """The last good one goes on meanwhile, and no door opens."""
    with two_versions(tmp_path) as (mount, _, new, before):
        broken = mount.version("broken")
        (broken / "web.yaml").write_text("")
        with before.attacked(*ATTACKS):
            mount.show(broken)
            for _ in range(5):
                assert before.get("/metrics").status == 200
            assert replace(before, login="me:none").get("/metrics").status != 200
            mount.show(new)
            after = replace(before, login="me:new", context=trusting(new, new))
            assert soon(after).status == 200


def in_pod(account: Path) -> tuple[str, ...]:
    """What runs a program as in a pod, with this service account."""
    where = "/run/secrets/kubernetes.io"
    script = (
        f"mount -t tmpfs none /run && mkdir -p {where} && "
        f'ln -s {account} {where}/serviceaccount && exec "$@"'
    )
    return (
        *("env", "KUBERNETES_SERVICE_HOST=127.0.0.1", "NO_PROXY=127.0.0.1"),
        f"KUBERNETES_SERVICE_PORT={API_PORT}",
        *("unshare", "--mount", "sh", "-c", script, "sh"),
    )


def test_the_token(tmp_path: Path) -> None:
    """The API server hears the new one from an agent that is not started again."""
    pki.authority(tmp_path)
    pki.certificate(tmp_path, "server")
    account = Mount(tmp_path / "account")
    for name in ("old", "new"):
        folder = account.version(name)
        (folder / "token").write_text(name)
        (folder / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    account.show(account.folder / "..old")

    def short(_: str, send: Send) -> None:
        """A watch that the server ends after a while, as it does."""
        send(ENDLESS)
        time.sleep(0.5)

    with contextlib.ExitStack() as stack:
        flags = ("--node-name", "node1")
        wrapper = in_pod(account.folder)
        victim = stack.enter_context(attacked_agent(*flags, wrapper=wrapper))
        server = victim.node.call(
            lambda: stack.enter_context(api_server(tls(tmp_path, "server"), API_PORT))
        )
        server.watch, server.bomb = True, short
        attack = (replace(each, login="") for each in ATTACKS)
        with victim.attacked(*attack):
            wait_until(lambda: len(server.tokens) > 3, "the agent to ask")
            assert {token.split()[1] for token in server.tokens} == {"old"}
            account.show(account.folder / "..new")
            told = wait_until(
                lambda: [token for token in server.tokens if token.endswith(" new")],
                "the new token",
                SECONDS,
            )
            assert told
            seen = len(server.tokens)
            wait_until(lambda: len(server.tokens) > seen + 3, "more requests")
            assert {token.split()[1] for token in server.tokens[seen:]} == {"new"}
            assert victim.get("/livez").status == 200
