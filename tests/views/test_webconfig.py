# SPDX-License-Identifier: Apache-2.0
"""A web config file is understood, or one sentence says what is wrong with it."""

import ssl
from pathlib import Path

import pytest

from agent.errors import BadValueError, Exit
from agent.views.webconfig import Tls, WebConfig, read

# Of "secret", by libxcrypt, with the prefix that htpasswd writes.
HASH = "$2y$10$abcdefghijklmnopqrstuuqflPDzB6gcMhKa1rZqKiun2YGL5sa2u"


def config(folder: Path, text: str) -> str:
    path = folder / "web.yaml"
    path.write_text(text)
    return str(path)


def test_all_of_it(tmp_path: Path) -> None:
    found = read(
        config(
            tmp_path,
            f"""
tls_server_config:
  cert_file: tls.crt
  key_file: /etc/tls.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
  min_version: TLS13
basic_auth_users:
  prometheus: {HASH}
""",
        )
    )
    assert found == WebConfig(
        Tls(
            f"{tmp_path}/tls.crt",
            "/etc/tls.key",
            f"{tmp_path}/ca.crt",
            ssl.CERT_REQUIRED,
            ssl.TLSVersion.TLSv1_3,
        ),
        {"prometheus": HASH.encode()},
    )


def test_what_is_not_said_is_as_with_exporter_toolkit(tmp_path: Path) -> None:
    tls = read(config(tmp_path, "tls_server_config: {cert_file: a, key_file: b}")).tls
    assert tls
    assert (tls.client_auth, tls.min_version) == (
        ssl.CERT_NONE,
        ssl.TLSVersion.TLSv1_2,
    )
    assert read(config(tmp_path, "")) == WebConfig(None, {})


TLS = "tls_server_config: {cert_file: a, key_file: b, "


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("tls_server_config: [", "no YAML, line 1: "),
        ("a: b: c", "no YAML, line 1: mapping values are not allowed here"),
        ("\0", "no YAML"),
        ("- 1", "the file is no mapping of names"),
        ("1: 2", "the file is no mapping of names"),
        (
            "basic_auth_user: {}",
            "the file: 'basic_auth_user' is not supported (only basic_auth_users, ",
        ),
        ("tls_server_config: {}", "tls_server_config.cert_file is missing"),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file is missing"),
        ("tls_server_config: {cert_file: 1}", "tls_server_config.cert_file is no text"),
        ("tls_server_config: text", "tls_server_config is no mapping of names"),
        (
            TLS + "client_allowed_sans: [x]}",
            "tls_server_config: 'client_allowed_sans' is not supported (only cert_file",
        ),
        (
            TLS + "min_version: TLS10}",
            "tls_server_config.min_version 'TLS10' is not supported (only TLS12,",
        ),
        (
            TLS + "client_auth_type: RequireAnyClientCert}",
            "tls_server_config.client_auth_type 'RequireAnyClientCert' is not ",
        ),
        (
            TLS + "client_auth_type: RequireAndVerifyClientCert}",
            "tls_server_config.client_ca_file is missing: who signs the clients'?",
        ),
        (
            TLS + "client_ca_file: c}",
            "tls_server_config.client_ca_file is of no use without client_auth_type",
        ),
        ("basic_auth_users: [a]", "basic_auth_users is no mapping of names"),
        (
            "basic_auth_users: {me: secret}",
            "the password of 'me' is no bcrypt hash",
        ),
        ("[]", "the file is no mapping"),
        ("basic_auth_users: []", "basic_auth_users is no mapping"),
        ("basic_auth_users: {}\nbasic_auth_users: {}", "'basic_auth_users' stands"),
        ("{a: 2026-13-45}", "a value in it makes no sense"),
        ("a: !!int ''", "a value in it makes no sense"),
        ("a: !!timestamp x", "a value in it makes no sense"),
        ("basic_auth_users: {me: 5}", "the password of 'me' is no bcrypt hash"),
        (
            f"basic_auth_users: {{'a:b': {HASH}}}",
            "basic_auth_users: 'a:b' is no user name",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, wrong: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(BadValueError) as caught:
        read(path)
    message = caught.value.message
    assert message.startswith(f"--web-config {path}: {wrong}")
    assert "\n" not in message
    assert caught.value.exit_code == Exit.USAGE


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "none.yaml", "no such file or directory"),
        (tmp_path, "is a directory"),
    ):
        with pytest.raises(BadValueError) as caught:
            read(str(path))
        assert caught.value.message == f"--web-config {path}: {why}"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadValueError, match="no YAML"):
        read(str(tmp_path / "bytes"))
