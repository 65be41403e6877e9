# SPDX-License-Identifier: Apache-2.0
"""A web config file is understood, or one sentence says what is wrong with it."""

from pathlib import Path

import pytest

from agent.errors import BadValueError, Exit
from agent.server.auth import Authenticator, Tls, WebConfig, read
from tests.process import unreadable_file
from tests.server import pki

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
  client_allowed_sans: [prometheus]
  min_version: TLS12
  max_version: TLS12
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP384]
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
basic_auth_users:
  prometheus: {HASH}
rate_limit:
  interval: 1m30.5s
  burst: 3
""",
        )
    )
    assert found.tls == Tls(
        cert_file=f"{tmp_path}/tls.crt",
        key_file="/etc/tls.key",
        client_ca_file=f"{tmp_path}/ca.crt",
        client_auth_type="RequireAndVerifyClientCert",
        client_allowed_sans=("prometheus",),
        min_version="TLS12",
        max_version="TLS12",
        cipher_suites=("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",),
        prefer_server_cipher_suites=False,
        curve_preferences=("CurveP384",),
    )
    assert found.users == {"prometheus": HASH}
    assert found.http_server_config
    assert found.http_server_config.headers == {"X-Frame-Options": "deny"}
    assert found.rate_limit
    assert (found.rate_limit.seconds, found.rate_limit.burst) == (90.5, 3)


def test_what_is_not_said_is_as_with_exporter_toolkit(tmp_path: Path) -> None:
    tls = read(config(tmp_path, "tls_server_config: {cert_file: a, key_file: b}")).tls
    assert tls
    assert not tls.asks_clients
    assert (tls.min_version, tls.max_version) == ("TLS12", "TLS13")
    for empty in ("", "{tls_server_config: , basic_auth_users: , rate_limit: }"):
        assert read(config(tmp_path, empty)) == WebConfig()


TLS = "tls_server_config: {cert_file: a, key_file: b, "


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("tls_server_config: [", "not valid YAML, line 1: "),
        ("a: b: c", "not valid YAML, line 1: mapping values are not allowed here"),
        ("\0", "not valid YAML"),
        ("- 1", "Expected `object`, got `array`"),
        ("1: 2", "Expected `str`"),
        ("[]", "Expected `object`, got `array`"),
        ("x: y", "Object contains unknown field `x`"),
        ("basic_auth_user: {}", "Object contains unknown field `basic_auth_user`"),
        ("tls_server_config: {}", "tls_server_config: cert_file is missing"),
        (
            "tls_server_config: {cert_file: a}",
            "tls_server_config: key_file is missing",
        ),
        (
            "tls_server_config: {cert_file: 1}",
            "tls_server_config.cert_file: expected `str`, got `int`",
        ),
        (
            "tls_server_config: text",
            "tls_server_config: expected `object | null`, got `str`",
        ),
        (TLS + "cert: x}", "tls_server_config: cert and cert_file cannot be combined"),
        (
            TLS + "client_allowed_sans: [x]}",
            "tls_server_config: client_ca_file and client_allowed_sans need client_a",
        ),
        (TLS + "x: y}", "tls_server_config: object contains unknown field `x`"),
        (
            TLS + "min_version: TLS10}",
            "tls_server_config: min_version 'TLS10' is not supported (only TLS12,",
        ),
        (
            TLS + "max_version: TLS11}",
            "tls_server_config: max_version 'TLS11' is not supported (only TLS12,",
        ),
        (
            TLS + "min_version: TLS13, max_version: TLS12}",
            "tls_server_config: min_version is above max_version",
        ),
        (
            TLS + "cipher_suites: [TLS_RSA_WITH_AES_128_GCM_SHA256]}",
            "tls_server_config: cipher_suites 'TLS_RSA_WITH_AES_128_GCM_SHA256' is not",
        ),
        (
            TLS + "curve_preferences: [x448]}",
            "tls_server_config: curve_preferences 'x448' is not supported (only Curve",
        ),
        (
            TLS + "curve_preferences: [CurveP256, CurveP384]}",
            "tls_server_config: more than one of curve_preferences needs Python 3.15",
        ),
        (
            TLS + "prefer_server_cipher_suites: 1}",
            "tls_server_config.prefer_server_cipher_suites: expected `bool`",
        ),
        (
            TLS + "client_auth_type: RequireAnyClientCert}",
            "tls_server_config.client_auth_type: invalid enum value 'RequireAnyClie",
        ),
        (
            TLS + "client_auth_type: RequireAndVerifyClientCert}",
            "tls_server_config: client_auth_type needs client_ca_file",
        ),
        (
            TLS + "client_ca_file: c}",
            "tls_server_config: client_ca_file and client_allowed_sans need client_a",
        ),
        ("basic_auth_users: [a]", "basic_auth_users: expected `object | null`, got"),
        ("basic_auth_users: []", "basic_auth_users: expected `object | null`, got"),
        ("basic_auth_users: {me: }", "basic_auth_users[...]: expected `str`, got"),
        ("basic_auth_users: {me: 5}", "basic_auth_users[...]: expected `str`, got"),
        (
            "basic_auth_users: {me: secret}",
            "the password of 'me' is not a bcrypt hash",
        ),
        (
            "basic_auth_users: {}\nbasic_auth_users: {}",
            "the key 'basic_auth_users' is there twice",
        ),
        ("{a: 2026-13-45}", "a value is not valid for its YAML type"),
        ("a: !!int ''", "a value is not valid for its YAML type"),
        ("a: !!timestamp x", "a value is not valid for its YAML type"),
        (
            f"basic_auth_users: {{'a:b': {HASH}}}",
            "basic_auth_users: 'a:b' is not a user name",
        ),
        (
            "http_server_config: {headers: {X-Powered-By: x}}",
            "http_server_config: headers 'X-Powered-By' is not supported (only Content",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: allow}}",
            "http_server_config: headers.X-Frame-Options 'allow' is not ",
        ),
        (
            'http_server_config: {headers: {X-XSS-Protection: "a\\r\\nb: c"}}',
            "http_server_config: headers.X-XSS-Protection is not printable ASCII",
        ),
        (
            "rate_limit: {interval: 1day, burst: 1}",
            "rate_limit: interval '1day' is not a duration such as 100ms",
        ),
        (
            "rate_limit: {interval: 1s}",
            "rate_limit: burst below 1 refuses every request",
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
    with pytest.raises(BadValueError, match="not valid YAML"):
        read(str(tmp_path / "bytes"))


@pytest.mark.parametrize("kind", ["fifo", "device", "long"])
@pytest.mark.parametrize("which", ["web.yaml", "server.crt", "server.key", "ca.crt"])
def test_files_that_are_none(tmp_path: Path, which: str, kind: str) -> None:
    """None is waited for, none is read without end."""
    pki.authority(tmp_path)
    pki.certificate(tmp_path, "server")
    path = config(
        tmp_path,
        "tls_server_config: {cert_file: server.crt, key_file: server.key, "
        "client_ca_file: ca.crt, client_auth_type: VerifyClientCertIfGiven}\n",
    )
    Authenticator(path)
    bad = tmp_path / which
    bad.unlink()
    unreadable_file(bad, kind)
    why = "longer than 1,048,576 bytes" if kind == "long" else "not a regular file"
    with pytest.raises(BadValueError, match=why):
        Authenticator(path)
