# SPDX-License-Identifier: Apache-2.0
"""Nobody on the network takes the agent down: see harness.Victim.under()."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest

from agent.lab.netns import wait_until
from tests.attacks.clients import Attack
from tests.attacks.harness import ATTACKERS, ATTEMPTS, Victim, attacked_agent
from tests.process import any_certificate
from tests.server import pki

ONE = ATTACKERS[:1]
PLAIN = {
    "heads of 99 x 64 KB": Attack("big_heads", sources=ONE),
    "heads of thousands of headers": Attack("many_headers", sources=ONE),
    "600 connections a second": Attack("ask", count=400, rate=600, sources=ONE),
    "600 scrapes a second": Attack(
        "ask", count=400, rate=600, sources=ONE, path="/metrics"
    ),
    "silent": Attack("silent", count=400, rate=600, sources=ONE),
    "silent, of 30 addresses": Attack("silent", count=400, rate=600, sources=ATTACKERS),
    "drip": Attack("drip", count=200, sources=ONE),
    "pipeline": Attack("pipeline", sources=ONE),
    "reset": Attack("reset", count=400, rate=600, sources=ONE),
}
ENCRYPTED = {
    name: PLAIN[name] for name in ("600 connections a second", "silent", "drip")
} | {
    # TLS takes the clients time: an agent without a limit lives for more than 3 s.
    "heads of 99 x 64 KB": Attack("big_heads", 12, sources=ONE),
    "slow handshakes": Attack("slow_handshake", count=200, sources=ONE),
}


def web_config(
    folder: Path,
    text: str = "",
    *,
    tls: bool = False,
    clients: str = "VerifyClientCertIfGiven",
) -> tuple[str, str]:
    """Flags of an agent; `clients`: its client_auth_type."""
    if tls:
        pki.authority(folder)
        pki.certificate(folder, "server")
        text += (
            "tls_server_config: {cert_file: server.crt, key_file: server.key, "
            f"client_ca_file: ca.crt, client_auth_type: {clients}}}\n"
        )
    (folder / "web.yaml").write_text(text)
    return "--web-config", str(folder / "web.yaml")


def users(cost: int = 10) -> str:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode()
    return f"basic_auth_users: {{me: {hashed}}}\n"


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with attacked_agent() as running:
        yield running


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    flags = web_config(tmp_path_factory.mktemp("tls"), tls=True)
    with attacked_agent(*flags, secure=True) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder = tmp_path_factory.mktemp("mutual")
    flags = web_config(folder, tls=True, clients="RequireAndVerifyClientCert")
    pki.certificate(folder, "client")
    context = any_certificate()
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    with attacked_agent(*flags, secure=True, context=context) as running:
        yield running


def unharmed(victim: Victim, attack: Attack) -> None:
    """Afterwards it holds no more descriptors than before, either."""
    before = victim.descriptors()
    victim.under(lambda: victim.attacked(attack), attack.seconds)
    wait_until(lambda: victim.descriptors() <= before + 2, "connections to end", 20)


@pytest.mark.parametrize("name", PLAIN)
def test_http(victim: Victim, name: str) -> None:
    unharmed(victim, PLAIN[name])


@pytest.mark.parametrize("name", ENCRYPTED)
def test_https(encrypted: Victim, name: str) -> None:
    unharmed(encrypted, ENCRYPTED[name])


@pytest.mark.parametrize("name", ENCRYPTED)
def test_https_with_certificates_of_clients(mutual: Victim, name: str) -> None:
    """Heads are read before anybody is asked who he is: /livez asks nobody."""
    unharmed(mutual, ENCRYPTED[name])
    nobody = replace(mutual, context=any_certificate())
    assert nobody.get("/metrics").status == 403


def test_guesses_of_many_addresses_keep_no_right_password_out(tmp_path: Path) -> None:
    """One that nobody has told the agent before; once all of them have failed."""
    guesses = Attack(
        *("ask", 30, 40),
        sources=ATTACKERS[:20],
        path="/metrics",
        login="me:wrong{}",
    )
    took = []
    for _ in range(ATTEMPTS):
        with attacked_agent(*web_config(tmp_path, users())) as victim:
            with victim.attacked(guesses):
                time.sleep(5)  # 20 addresses, two guesses each
                answer = victim.get("/metrics", login="me:right")
            assert answer.status == 200, answer
            took.append(answer.seconds)
        if took[-1] < 1:
            return
    raise AssertionError(f"seconds: {took}")


@contextlib.contextmanager
def guessed(folder: Path) -> Iterator[Victim]:
    """bcrypt has work for seconds, and always."""
    guesses = Attack(
        *("ask", 30, 30), sources=ATTACKERS, path="/metrics", login="me:wrong{}"
    )
    with (
        attacked_agent(*web_config(folder, users(14))) as victim,
        victim.attacked(guesses),
    ):
        time.sleep(2)
        yield victim


def test_sigterm_ends_it_within_a_second_while_passwords_are_checked(
    tmp_path: Path,
) -> None:
    took = []
    for _ in range(ATTEMPTS):
        with guessed(tmp_path) as victim:
            begun = time.monotonic()
            victim.process.send_signal(signal.SIGTERM)
            assert victim.process.wait(60) == 0
            took.append(time.monotonic() - begun)
    assert min(took) < 1, took


def test_a_web_config_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    """web.yaml -> ..data/web.yaml, and ..data gets another target."""
    for name, password in (("old", b"right"), ("new", b"other")):
        (tmp_path / name).mkdir()
        hashed = bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()
        text = f"basic_auth_users: {{me: {hashed}}}\n"
        (tmp_path / name / "web.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "web.yaml").symlink_to("..data/web.yaml")
    with attacked_agent("--web-config", str(tmp_path / "web.yaml")) as victim:
        assert victim.get("/metrics", login="me:right").status == 200
        (tmp_path / "next").symlink_to("new")
        os.replace(tmp_path / "next", tmp_path / "..data")
        assert victim.get("/metrics", login="me:right").status == 401
        assert victim.get("/metrics", login="me:other").status == 200
