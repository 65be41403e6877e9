# SPDX-License-Identifier: Apache-2.0
"""A real server with a web config: TLS, passwords, client certificates, rotation."""

import base64
import contextlib
import json
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import bcrypt
import pytest
import structlog

from agent.errors import BadValueError
from agent.lab.netns import wait_until
from agent.server.auth import Authenticator
from agent.server.http_server import Request, Response, Route, Server, text_response
from agent.settings import Address
from tests.process import fetch_from, free_port
from tests.server import pki

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def served_to(_: Request) -> Response:
    return text_response(HTTPStatus.OK, "served")


ROUTES = dict.fromkeys(("/", "/metrics", "/livez", "/readyz"), Route(served_to))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.authority(tmp_path)
    pki.certificate(tmp_path, "server")
    return tmp_path


@contextlib.contextmanager
def served(folder: Path, text: str) -> Iterator[int]:
    """The port of a server with this web config."""
    (folder / "web.yaml").write_text(text)
    port = free_port()
    auth = Authenticator(str(folder / "web.yaml"))
    with Server(Address("127.0.0.1", port), auth) as server, server.serving(ROUTES):
        yield port


def trusting(folder: Path, client: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    if client:
        context.load_cert_chain(folder / f"{client}.crt", folder / f"{client}.key")
    return context


def status(
    url: str,
    context: ssl.SSLContext | None = None,
    login: str = "",
    method: str = "GET",
) -> int:
    headers = {}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    request = urllib.request.Request(url, headers=headers, method=method)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        *([urllib.request.HTTPSHandler(context=context)] if context else []),
    )
    try:
        with opener.open(request, timeout=60) as answer:
            assert answer.read() == (b"" if method == "HEAD" else b"served")
            return int(answer.status)
    except urllib.error.HTTPError as err:
        with err:
            asks = "WWW-Authenticate" in err.headers
            return err.code if asks == (err.code == 401) else 0


def test_tls(folder: Path) -> None:
    with served(folder, TLS) as port:
        context = trusting(folder)
        assert status(f"https://localhost:{port}/metrics", context) == 200
        stranger = ssl.create_default_context()
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            status(f"https://localhost:{port}/metrics", stranger)


def test_old_tls_is_refused(folder: Path) -> None:
    with served(folder, TLS + "  min_version: TLS13\n") as port:
        context = trusting(folder)
        assert status(f"https://localhost:{port}/", context) == 200
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(urllib.error.URLError, match=r"EOF|PROTOCOL_VERSION"):
            status(f"https://localhost:{port}/", context)


def test_who_speaks_no_tls_neither_stops_nor_fills_the_log(folder: Path) -> None:
    """One is silent in the handshake, one speaks HTTP; others are served meanwhile."""
    with (
        structlog.testing.capture_logs() as logs,
        served(folder, TLS) as port,
        socket.create_connection(("127.0.0.1", port)),
    ):
        with pytest.raises(OSError):  # noqa: PT011  closed, or reset
            status(f"http://localhost:{port}/")
        assert status(f"https://localhost:{port}/", trusting(folder)) == 200
    assert logs == []


def test_passwords(folder: Path) -> None:
    users = (
        f"basic_auth_users: {{prometheus: {hashed('right')}, pröm: {hashed('ü:b')}}}"
    )
    with served(folder, users) as port:
        url = f"http://localhost:{port}/metrics"
        assert status(url) == 401
        assert status(url, method="HEAD") == 401
        for wrong in (
            *("prometheus:wrong", "prometheus:", "prometheus", "nobody:right", ":"),
            *("prometheus:" + "x" * 100, "prometheus:right\0"),
        ):
            assert status(url, login=wrong) == 401, wrong
        for _ in range(2):  # the second time by heart
            assert status(url, login="prometheus:right") == 200
            assert status(url, login="prometheus:wrong") == 401
        assert status(url, login="pröm:ü:b") == 200
        assert status(url, login="pröm:ü:b", method="HEAD") == 200


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic ????", "Basic /w=="])
def test_a_header_that_is_no_login(folder: Path, header: str) -> None:
    with served(folder, f"basic_auth_users: {{me: {hashed('right')}}}") as port:
        url = f"http://localhost:{port}/"
        request = urllib.request.Request(url, headers={"Authorization": header})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        assert caught.value.code == 401
        caught.value.close()


def test_hashes_of_other_programs(folder: Path) -> None:
    """htpasswd writes $2y$."""
    from tests.server.test_web_config import HASH

    with served(folder, f"basic_auth_users: {{me: {HASH}}}") as port:
        assert status(f"http://localhost:{port}/", login="me:secret") == 200
        assert status(f"http://localhost:{port}/", login="me:wrong") == 401


def test_a_known_password_costs_nothing_and_an_unknown_name_as_much(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[bytes] = []
    real = bcrypt.checkpw

    def counted(password: bytes, expected: bytes) -> bool:
        hashes.append(expected)
        return real(password, expected)

    monkeypatch.setattr("agent.server.auth.bcrypt.checkpw", counted)
    with served(folder, f"basic_auth_users: {{me: {hashed('right')}}}") as port:
        url = f"http://localhost:{port}/"
        for _ in range(3):
            assert status(url, login="me:right") == 200
        assert len(hashes) == 1
        assert status(url, login="nobody:right") == 401
        assert len(hashes) == 2


def test_by_its_cost_nobody_can_tell_whether_a_name_is_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown names have the costs of the known ones, each always the same."""
    hashes: list[bytes] = []
    monkeypatch.setattr("agent.server.auth._FREE_FAILURES", 1000)
    monkeypatch.setattr(
        "agent.server.auth.bcrypt.checkpw", lambda _, hashed: hashes.append(hashed)
    )
    users = f"{{me: {hashed('right')}, you: {hashed('right').replace('$04', '$12')}}}"
    with served(folder, f"basic_auth_users: {users}") as port:
        for name in [f"nobody{number}" for number in range(30)] * 2:
            assert status(f"http://localhost:{port}/", login=f"{name}:right") == 401
    costs = [hashed[4:6] for hashed in hashes]
    assert set(costs) == {b"04", b"12"}
    assert costs[:30] == costs[30:]


def test_failures_back_off_and_a_client_without_goes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guesses of many addresses wait behind the right password of another."""
    begun, turns = threading.Event(), threading.Semaphore(0)
    order: list[bytes] = []

    def slow(password: bytes, _: bytes) -> bool:
        order.append(password)
        begun.set()
        assert turns.acquire(timeout=60)
        return password == b"right"

    monkeypatch.setattr("agent.server.auth._WAIT_SECONDS", 60)
    monkeypatch.setattr("agent.server.auth.bcrypt.checkpw", slow)
    (folder / "web.yaml").write_text(f"basic_auth_users: {{me: {hashed('right')}}}")
    auth = Authenticator(str(folder / "web.yaml"))
    sources = [f"127.0.0.{number}" for number in range(10, 14)]
    with (
        Server(Address("127.0.0.1", 0), auth) as server,
        server.serving(ROUTES),
        ThreadPoolExecutor(10) as pool,
    ):
        port = server.port

        def ask(source: str, login: str) -> Future[tuple[int, str]]:
            return pool.submit(fetch_from, source, port, "/", login)

        turns.release(len(sources))
        for source in sources:
            assert ask(source, "me:wrong").result()[0] == 401
        begun.clear()
        guesses = [ask(source, "me:wrong") for source in sources]
        assert begun.wait(60)
        first = order[len(sources) :]
        last = ask("127.0.0.9", "me:right")
        wait_until(lambda: len(auth._pool._waiting) == len(sources), "all of them")
        turns.release(len(sources) + 1)
        assert last.result() == (200, "served")
        assert [guess.result()[0] for guess in guesses] == [401] * len(sources)
        assert order[len(sources) + len(first)] == b"right"
        for _ in range(6):
            turns.release()
            code, _ = ask("127.0.0.10", "me:wrong").result()
        assert code == 429
        assert status(f"http://localhost:{port}/livez") == 200


def test_only_so_many_guesses_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one address; who comes from another waits in line, who is known need not."""
    begun, end, real = threading.Event(), threading.Event(), bcrypt.checkpw

    def slow(password: bytes, expected: bytes) -> bool:
        begun.set()
        assert end.wait(60)
        return real(password, expected)

    monkeypatch.setattr("agent.server.auth._WAIT_SECONDS", 60)
    users = f"basic_auth_users: {{me: {hashed('right')}, you: {hashed('too')}}}"
    with served(folder, users) as port, ThreadPoolExecutor(10) as pool:
        url = f"http://localhost:{port}/"
        assert status(url, login="me:right") == 200
        monkeypatch.setattr("agent.server.auth.bcrypt.checkpw", slow)
        guesses = [pool.submit(status, url, None, "me:wrong") for _ in range(9)]
        try:
            assert begun.wait(60)
            wait_until(lambda: sum(each.done() for each in guesses) == 7, "the others")
            other = pool.submit(fetch_from, "127.0.0.2", port, "/", "you:too")
            assert status(url, login="me:right") == 200
        finally:
            end.set()
        assert sorted(each.result() for each in guesses) == [401] * 2 + [503] * 7
        assert other.result() == (200, "served")


def test_who_is_known_stays_so_when_only_the_certificate_is_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of guesses must not meet every scraper anew."""
    users = f"basic_auth_users: {{me: {hashed('right')}}}"
    with served(folder, TLS + users) as port:
        url = f"https://localhost:{port}/"
        assert status(url, trusting(folder), "me:right") == 200
        monkeypatch.setattr("agent.server.auth.bcrypt.checkpw", lambda *_: False)
        pki.certificate(folder, "server")
        assert status(url, trusting(folder), "me:right") == 200
        assert status(url, trusting(folder), "me:wrong") == 401


def test_probes_need_no_password(folder: Path) -> None:
    users = f"basic_auth_users: {{me: {hashed('right')}}}"
    with served(folder, TLS + users) as port:
        for path, code in (("livez", 200), ("readyz", 200), ("livez/..", 401)):
            url = f"https://localhost:{port}/{path}"
            assert status(url, trusting(folder)) == code


def test_client_certificates(folder: Path) -> None:
    """Asked of all but the probes; one of another authority ends the handshake."""
    pki.certificate(folder, "client")
    pki.authority(folder, "other")
    pki.certificate(folder, "stranger", ca="other")
    wanted = (
        "  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n"
    )
    with served(folder, TLS + wanted) as port:
        url = f"https://localhost:{port}"
        assert status(f"{url}/metrics", trusting(folder, "client")) == 200
        assert status(f"{url}/metrics", trusting(folder)) == 403
        assert status(f"{url}/readyz", trusting(folder)) == 200
        with pytest.raises(OSError):  # noqa: PT011  told in the handshake, or after
            status(f"{url}/readyz", trusting(folder, "stranger"))
    given = wanted.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    with served(folder, TLS + given) as port:
        url = f"https://localhost:{port}/metrics"
        assert status(url, trusting(folder, "client")) == 200
        assert status(url, trusting(folder)) == 200
        with pytest.raises(OSError):  # noqa: PT011  as above
            status(url, trusting(folder, "stranger"))


def shown(port: int, folder: Path) -> str:
    """The certificate that a client sees."""
    with socket.create_connection(("localhost", port), timeout=60) as plain:
        context = trusting(folder)
        with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
            return ssl.DER_cert_to_PEM_cert(
                encrypted.getpeercert(binary_form=True) or b""
            )


def test_a_rotated_certificate_serves_the_next_connection(tmp_path: Path) -> None:
    """As Kubernetes rotates a Secret: a symbolic link gets another target."""
    pki.authority(tmp_path)
    for each in ("old", "new"):
        (tmp_path / each).mkdir()
        for file in ("ca.crt", "ca.key"):
            (tmp_path / each / file).symlink_to(tmp_path / file)
        pki.certificate(tmp_path / each, "server")
    (tmp_path / "data").symlink_to("old")
    text = TLS.replace("server.", "data/server.")
    with structlog.testing.capture_logs() as logs, served(tmp_path, text) as port:
        assert shown(port, tmp_path) == (tmp_path / "old/server.crt").read_text()
        (tmp_path / "next").symlink_to("new")
        os.replace(tmp_path / "next", tmp_path / "data")
        assert shown(port, tmp_path) == (tmp_path / "new/server.crt").read_text()
    assert [entry["event"] for entry in logs] == ["web config reloaded"]


def test_a_broken_renewal_keeps_what_was_good_and_says_so_once(folder: Path) -> None:
    (folder / "good.crt").write_bytes((folder / "server.crt").read_bytes())
    good = TLS + f"basic_auth_users: {{me: {hashed('right')}}}\n"
    with structlog.testing.capture_logs() as logs, served(folder, good) as port:
        url, context = f"https://localhost:{port}/", trusting(folder)

        def serves(login: str) -> bool:
            return status(url, context, login) == 200

        for broken in ("tls_server_config: [", good + "x: y\n", "basic_auth_users: {}"):
            (folder / "web.yaml").write_text(broken)
            assert serves("me:right")
            assert not serves("me:wrong")
        (folder / "web.yaml").write_text(good.replace("server.crt", "none.crt"))
        assert serves("me:right")
        errors = [entry["error"] for entry in logs]
        assert len(errors) == 4
        assert "switching TLS on or off needs a restart" in errors[2]
        assert "none.crt" in errors[3]
        assert "no such file" in errors[3]
        # What was missing comes: no other file has changed.
        os.replace(folder / "good.crt", folder / "none.crt")
        assert serves("me:right")
        assert logs[-1]["event"] == "web config reloaded"
        changed = good.replace(good.split("me: ")[1], hashed("other") + "}\n")
        (folder / "web.yaml").write_text(changed)
        assert serves("me:other")
        assert not serves("me:right")


def test_certificates_that_cannot_be_used(folder: Path) -> None:
    pki.certificate(folder, "another")
    (folder / "empty.crt").write_text("")
    path = folder / "web.yaml"
    for crt, key, why in (
        ("none.crt", "server.key", "no such file or directory"),
        ("server.crt", "another.key", "key values mismatch"),
        ("empty.crt", "server.key", "cannot be used"),
    ):
        path.write_text(f"tls_server_config: {{cert_file: {crt}, key_file: {key}}}")
        with pytest.raises(BadValueError) as caught:
            Authenticator(str(path))
        assert why in caught.value.message
        assert "\n" not in caught.value.message


def test_an_encrypted_key_is_refused_and_nobody_is_asked(folder: Path) -> None:
    import subprocess

    subprocess.run(
        [
            *("openssl", "pkcs8", "-topk8", "-passout", "pass:x"),
            *("-in", folder / "server.key", "-out", folder / "locked.key"),
        ],
        check=True,
    )
    path = folder / "web.yaml"
    path.write_text(TLS.replace("server.key", "locked.key"))
    with pytest.raises(BadValueError, match="cannot be used"):
        Authenticator(str(path))


@pytest.mark.parametrize("emptied", ["", "basic_auth_users:\n"])
def test_a_file_that_is_empty_while_it_is_saved_opens_no_door(
    folder: Path, emptied: str
) -> None:
    users = f"basic_auth_users:\n  me: {hashed('secret')}\n"
    with served(folder, users) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        assert status(url) == 401
        (folder / "web.yaml").write_text(emptied)
        with structlog.testing.capture_logs() as logs:
            assert status(url) == 401
        assert [entry["event"] for entry in logs] == ["web config not reloaded"]


def negotiated(port: int, folder: Path, ciphers: str = "") -> tuple[str, str]:
    """Version and suite of a connection."""
    context = trusting(folder)
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    with (
        socket.create_connection(("localhost", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        suite = encrypted.cipher()
        assert suite
        return encrypted.version() or "", suite[0]


def test_versions_suites_and_their_order(folder: Path) -> None:
    pki.certificate(folder, "server")
    first, second = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"
    names = [
        f"TLS_ECDHE_ECDSA_WITH_{name}"
        for name in ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384")
    ]
    suites = f"{TLS}  cipher_suites: [{', '.join(names)}]\n"
    with served(folder, f"{suites}  max_version: TLS12\n") as port:
        assert negotiated(port, folder)[0] == "TLSv1.2"
        assert negotiated(port, folder, f"{second}:{first}")[1] == first
        with pytest.raises(OSError):  # noqa: PT011  told in several ways
            negotiated(port, folder, "ECDHE-ECDSA-CHACHA20-POLY1305")
    with served(folder, f"{suites}  prefer_server_cipher_suites: false\n") as port:
        assert negotiated(port, folder, f"{second}:{first}")[1] == second
    with served(folder, f"{TLS}  cipher_suites: [TLS_AES_128_GCM_SHA256]\n") as port:
        assert negotiated(port, folder)[0] == "TLSv1.3"
        with pytest.raises(OSError):  # noqa: PT011  as above
            negotiated(port, folder, first)


def test_there_is_no_suite_without_forward_secrecy(folder: Path) -> None:
    (folder / "web.yaml").write_text(TLS)
    context = Authenticator(str(folder / "web.yaml")).context()
    assert context
    older = [suite for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"]
    assert older
    assert all(suite["name"].startswith("ECDHE-") for suite in older)


def test_a_curve(folder: Path) -> None:
    with served(folder, f"{TLS}  curve_preferences: [CurveP384]\n") as port:
        context = trusting(folder)
        context.set_ecdh_curve("secp521r1")
        with pytest.raises(urllib.error.URLError):
            status(f"https://localhost:{port}/", context)
        context.set_ecdh_curve("secp384r1")
        assert status(f"https://localhost:{port}/", context) == 200


def test_certificates_in_the_file_itself(folder: Path) -> None:
    pki.certificate(folder, "client")
    pems = {"cert": "server.crt", "key": "server.key", "client_ca": "ca.crt"}
    tls: dict[str, str] = {
        key: (folder / name).read_text() for key, name in pems.items()
    }
    tls["client_auth_type"] = "RequireAndVerifyClientCert"
    with served(folder, json.dumps({"tls_server_config": tls})) as port:
        url = f"https://localhost:{port}/metrics"
        assert status(url, trusting(folder, "client")) == 200
        assert status(url, trusting(folder)) == 403


@pytest.mark.parametrize(("san", "code"), [("127.0.0.1", 200), ("other", 403)])
def test_names_of_clients(folder: Path, san: str, code: int) -> None:
    pki.certificate(folder, "client")
    wanted = (
        "  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n"
        f"  client_allowed_sans: ['{san}']\n"
    )
    with served(folder, TLS + wanted) as port:
        url = f"https://localhost:{port}"
        assert status(f"{url}/metrics", trusting(folder, "client")) == code
        assert status(f"{url}/livez", trusting(folder)) == 200


def test_headers(folder: Path) -> None:
    """Of every answer, also of a refusal."""
    text = (
        "http_server_config: {http2: false, headers: {X-Frame-Options: deny, "
        "X-XSS-Protection: ''}}\n"
        f"basic_auth_users: {{me: {hashed('right')}}}"
    )
    with served(folder, text) as port:
        for path in ("livez", "metrics"):
            try:
                answer = urllib.request.urlopen(f"http://localhost:{port}/{path}")
            except urllib.error.HTTPError as err:
                answer = err
            with answer:
                assert answer.headers["X-Frame-Options"] == "deny"
                assert "X-XSS-Protection" not in answer.headers


def test_rate_limit(folder: Path) -> None:
    with served(folder, "rate_limit: {interval: 1h, burst: 3}") as port:
        url = f"http://localhost:{port}"
        codes = [status(f"{url}/metrics") for _ in range(5)]
        assert codes == [200] * 3 + [429] * 2
        assert status(f"{url}/livez") == 200
