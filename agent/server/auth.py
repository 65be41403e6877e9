# SPDX-License-Identifier: Apache-2.0
"""TLS and passwords of the web server, by a web configuration file of exporter-toolkit
(docs/web-configuration.md there), applied anew when it or a certificate changes.

What cannot be enforced is refused by name: a key that was skipped would leave a door
open.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import ipaddress
import math
import os
import re
import secrets
import ssl
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import bcrypt
import msgspec
import structlog
import yaml

from agent.errors import BadValueError
from agent.input_files import read_regular_file
from agent.server.http_server import BusyError, Pool, Request, Response, text_response
from agent.typed_json import reason

_log = structlog.get_logger(__name__)

# For kubelet and load balancers, which have neither password nor certificate.
_UNAUTHENTICATED_PATHS = ("/livez", "/readyz")
_MAX_FILE_BYTES = 1 << 20
# One after the other, so that a flood of guesses takes one CPU at most.
_MAX_PER_CLIENT = 2
_WAIT_SECONDS = 5.0
# After so many failures a client's next guess has to wait, each time twice as long.
_FREE_FAILURES = 5
_MAX_BACKOFF_SECONDS = 8.0  # below scrape intervals: a mended password is soon heard
_FORGET_SECONDS = 600.0
_MAX_REMEMBERED = 4096

# Go's names of versions, curves and suites, and OpenSSL's. The suites have forward
# secrecy and are for TLS 1.2; 1.3 has all of its own (crypto/tls/cipher_suites.go).
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CURVES = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_CIPHERS = {
    f"TLS_ECDHE_{key}_WITH_{go}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
_CIPHERS_13 = ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
_CIPHERS |= {f"TLS_{name}": "" for name in _CIPHERS_13}
_DEFAULT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# Header names, and their values where those are few (web/handler.go).
_HEADERS = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff", ""),
    "X-Frame-Options": ("deny", "sameorigin", ""),
    "X-XSS-Protection": (),
}
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_MANUAL = "see exporter-toolkit's docs/web-configuration.md for the format"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the file, with the file's names."""


class Tls(_Section, frozen=True):
    """How connections are encrypted, `tls_server_config`."""

    cert: str = ""
    key: str = ""
    client_ca: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    # OpenSSL has no mode for Go's RequestClientCert and RequireAnyClientCert, which
    # take certificates that nobody has checked.
    client_auth_type: Literal[
        "", "NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"
    ] = ""
    client_allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: tuple[str, ...] = ()

    def __post_init__(self) -> None:  # noqa: C901  a list of rules
        """Refuse what contradicts itself or cannot be enforced: ValueError."""
        _require_known("min_version", _VERSIONS, self.min_version)
        _require_known("max_version", _VERSIONS, self.max_version)
        _require_known("cipher_suites", _CIPHERS, *self.cipher_suites)
        _require_known("curve_preferences", _CURVES, *self.curve_preferences)
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        if len(self.curve_preferences) > 1 and sys.version_info < (3, 15):
            raise ValueError("more than one of curve_preferences needs Python 3.15")
        for name in self.curve_preferences:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(_CURVES[name])
            except (ValueError, ssl.SSLError) as err:  # X25519, in older Pythons
                why = f"curve_preferences {name!r} is not supported by this Python"
                raise ValueError(why) from err
        for name in ("cert", "key", "client_ca"):
            if getattr(self, name) and getattr(self, f"{name}_file"):
                raise ValueError(f"{name} and {name}_file cannot be combined")
        for name in ("cert", "key"):
            if not getattr(self, name) and not getattr(self, f"{name}_file"):
                raise ValueError(f"{name}_file is missing")
        authority = self.client_ca or self.client_ca_file
        if self.asks_clients and not authority:
            raise ValueError("client_auth_type needs client_ca_file")
        if (authority or self.client_allowed_sans) and not self.asks_clients:
            raise ValueError(
                "client_ca_file and client_allowed_sans need client_auth_type "
                "VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            )

    @property
    def asks_clients(self) -> bool:
        """Whether clients may or must show a certificate."""
        return self.client_auth_type not in ("", "NoClientCert")

    @property
    def files(self) -> tuple[str, ...]:
        """All paths that a context is made from."""
        return tuple(filter(None, (self.cert_file, self.key_file, self.client_ca_file)))

    def context(self) -> ssl.SSLContext:
        """For a server; OSError or ValueError where a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[self.min_version]
        context.maximum_version = _VERSIONS[self.max_version]
        ciphers = ":".join(filter(None, map(_CIPHERS.get, self.cipher_suites)))
        if self.cipher_suites and not ciphers:  # those of TLS 1.3 alone
            context.minimum_version = _VERSIONS["TLS13"]
        context.set_ciphers(ciphers or _DEFAULT_CIPHERS)
        if not self.prefer_server_cipher_suites:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        curves = [_CURVES[name] for name in self.curve_preferences]
        if len(curves) == 1:
            context.set_ecdh_curve(curves[0])
        elif curves:
            getattr(context, "set_groups")(":".join(curves))  # noqa: B009  Python 3.15
        cert, key, authority = (
            text.encode() or (read_regular_file(path, _MAX_FILE_BYTES) if path else b"")
            for text, path in (
                (self.cert, self.cert_file),
                (self.key, self.key_file),
                (self.client_ca, self.client_ca_file),
            )
        )
        with _as_file(cert) as cert_path, _as_file(key) as key_path:
            # An encrypted key must fail: OpenSSL would ask on the terminal.
            context.load_cert_chain(cert_path, key_path, password="")
        if self.asks_clients:
            context.load_verify_locations(cadata=authority.decode("ascii"))
            # Who must show one is asked for it here and refused later: the kubelet
            # has none to show when it probes.
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def allows(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client with this (verified) certificate may ask."""
        if certificate is None:
            return self.client_auth_type != "RequireAndVerifyClientCert"
        names = {_san(*pair) for pair in certificate.get("subjectAltName", ())}
        return not self.client_allowed_sans or bool(
            names & set(self.client_allowed_sans)
        )


class _Http(_Section, frozen=True):
    """`http_server_config`. We speak no HTTP/2; who may use it uses HTTP/1.1."""

    http2: bool = True
    headers: dict[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse other headers and values than exporter-toolkit: ValueError."""
        for name, value in (self.headers or {}).items():
            _require_known("headers", _HEADERS, name)
            if _HEADERS[name]:
                _require_known(f"headers.{name}", _HEADERS[name], value)
            if not re.fullmatch(r"[ -~]*", value):
                raise ValueError(f"headers.{name} is not printable ASCII")


class _RateLimit(_Section, frozen=True):
    """`rate_limit`: a token bucket, 0 is no limit."""

    interval: str | int = 0
    burst: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no duration: ValueError."""
        if _DURATION.sub("", str(self.interval)) not in ("", "0"):
            raise ValueError(
                f"interval {self.interval!r} is not a duration such as 100ms"
            )
        if self.seconds and self.burst < 1:
            raise ValueError("burst below 1 refuses every request")

    @property
    def seconds(self) -> float:
        """After how many there is another token."""
        parts = _DURATION.findall(str(self.interval))
        return sum(float(number) * _UNITS[unit] for number, unit in parts)


class WebConfig(_Section, frozen=True):
    """What the file says. Users have bcrypt hashes; without users no password."""

    tls_server_config: Tls | None = None
    http_server_config: _Http | None = None
    basic_auth_users: dict[str, str] | None = None
    rate_limit: _RateLimit | None = None

    def __post_init__(self) -> None:
        """Refuse what is no user or no hash: ValueError."""
        for name, value in (self.basic_auth_users or {}).items():
            if not _BCRYPT.fullmatch(value):
                raise ValueError(f"the password of {name!r} is not a bcrypt hash")
            if not name or ":" in name:
                raise ValueError(f"basic_auth_users: {name!r} is not a user name")

    @property
    def tls(self) -> Tls | None:
        """None: connections are not encrypted."""
        return self.tls_server_config

    @property
    def users(self) -> dict[str, str]:
        """Hashes by name; none: no password is asked for."""
        return self.basic_auth_users or {}


def _require_known(key: str, names: Iterable[str], *values: str) -> None:
    for value in values:
        if value not in names:
            known = ", ".join(filter(None, names))
            raise ValueError(f"{key} {value!r} is not supported (only {known})")


class Authenticator:
    """Applies a web configuration file. It and its files are looked at for each
    connection and request; where they have changed and cannot be used, the last good
    ones stay and the log says so once. BadValueError where the first cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pool = Pool(1, _MAX_PER_CLIENT, _WAIT_SECONDS)
        self._secret = secrets.token_bytes(32)
        self._known: set[bytes] = set()  # right passwords, by their digests
        # Number of failures, and when the next guess is due, by client; oldest first.
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._bucket = (0.0, -math.inf)  # tokens, and when it was filled up
        self._signatures: dict[str, object] = {}
        self._config, self._context = self._read()

    def context(self) -> ssl.SSLContext | None:
        """TLS of the next connection; None: it is not encrypted."""
        self._reload_if_changed()
        return self._context

    def headers(self) -> Mapping[str, str]:
        """Headers of every response."""
        http = self._config.http_server_config
        headers = (http and http.headers) or {}
        return {name: value for name, value in headers.items() if value}

    async def check(self, request: Request) -> Response | None:
        """The refusal; None: the request is allowed, as probes always are."""
        if request.path in _UNAUTHENTICATED_PATHS:
            return None
        self._reload_if_changed()
        config = self._config
        if config.rate_limit and not self._take_token(config.rate_limit):
            return _refusal(HTTPStatus.TOO_MANY_REQUESTS)
        if config.tls and not config.tls.allows(request.certificate):
            return _refusal(HTTPStatus.FORBIDDEN)
        return await self._check_password(config, request) if config.users else None

    def _take_token(self, limit: _RateLimit) -> bool:
        if not limit.seconds:
            return True
        tokens, filled = self._bucket
        now = time.monotonic()
        tokens = min(limit.burst, tokens + (now - filled) / limit.seconds)
        self._bucket = tokens - (tokens >= 1), now
        return tokens >= 1

    async def _check_password(
        self, config: WebConfig, request: Request
    ) -> Response | None:
        name, password = _credentials(request.headers.get("authorization", ""))
        if not name:
            return _refusal(HTTPStatus.UNAUTHORIZED)
        # bcrypt is slow by design: a scraper pays for it once.
        known, text = self._known, name.encode() + b"\0" + password
        token = hmac.digest(self._secret, text, hashlib.sha256)
        if token in known:
            return None
        failures, due = self._failures.get(request.client, (0, 0.0))
        if (wait := due - time.monotonic()) > 0:
            return _refusal(HTTPStatus.TOO_MANY_REQUESTS, Retry_After=f"{wait:.0f}")
        hashed = config.users.get(name)
        against = (hashed or self._dummy(config, name)).encode()
        work = partial(bcrypt.checkpw, password, against)
        try:
            right = await self._pool.run(request.client, work, failures)
        except BusyError:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE)
        except ValueError:  # longer than bcrypt takes
            right = False
        if right and hashed is not None:
            known.add(token)
            self._failures.pop(request.client, None)
            return None
        self._note_failure(request.client)
        return _refusal(HTTPStatus.UNAUTHORIZED)

    def _dummy(self, config: WebConfig, name: str) -> str:
        """A hash of no user, with the cost of one that is configured: by the time of
        an answer nobody can tell which names there are.
        """
        digest = hmac.digest(self._secret, name.encode(), hashlib.sha256)
        hashes = sorted(config.users.values())
        chosen = hashes[int.from_bytes(digest[:8], "big") % len(hashes)]
        return chosen[: len("$2b$10$")] + "." * 53

    def _note_failure(self, client: str) -> None:
        now = time.monotonic()
        failures, due = self._failures.pop(client, (0, 0.0))
        failures = 1 if now - due > _FORGET_SECONDS else failures + 1
        over = failures - _FREE_FAILURES
        delay = min(0.25 * 2 ** min(over, 10), _MAX_BACKOFF_SECONDS) if over > 0 else 0
        self._failures[client] = failures, now + delay
        if len(self._failures) > _MAX_REMEMBERED:
            self._failures.popitem(last=False)

    def _reload_if_changed(self) -> None:
        if all(_signature(path) == seen for path, seen in self._signatures.items()):
            return
        try:
            config, context = self._read()
            self._reject_weaker(config)
        except BadValueError as err:
            _log.error("web config not reloaded", error=err.message)
            return
        if config.users != self._config.users:
            self._known = set()
        self._config, self._context = config, context
        _log.info("web config reloaded")

    def _reject_weaker(self, config: WebConfig) -> None:
        """A file that is empty while it is saved must not open the door."""
        before, now = self._config.tls, config.tls
        if (before is None) != (now is None):
            what = "switching TLS on or off needs a restart"
        elif self._config.users and not config.users:
            what = "removing all users needs a restart"
        elif before and now and before.asks_clients and not now.asks_clients:
            what = "no longer checking client certificates needs a restart"
        elif (
            before
            and now
            and before.client_allowed_sans
            and not now.client_allowed_sans
        ):
            what = "removing client_allowed_sans needs a restart"
        else:
            return
        raise BadValueError(f"--web-config {self._path}: {what}", "restart the agent")

    def _read(self) -> tuple[WebConfig, ssl.SSLContext | None]:
        # Looked at before they are read: what changes meanwhile is read again.
        self._signatures = {self._path: _signature(self._path)}
        config = read(self._path)
        if not config.tls:
            return config, None
        self._signatures |= {path: _signature(path) for path in config.tls.files}
        try:
            return config, config.tls.context()
        except (OSError, ValueError) as err:
            why = str(
                getattr(err, "reason", None) or getattr(err, "strerror", "") or err
            )
            names = " or ".join(config.tls.files) or "cert, key or client_ca"
            raise BadValueError(
                f"--web-config {self._path}: {names} cannot be used: "
                f"{why.lower().replace('_', ' ')}",
                "use PEM files: a certificate, its key without a password, and the "
                "certificate authority of the clients",
            ) from err


def _refusal(status: HTTPStatus, **headers: str) -> Response:
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW_Authenticate"] = 'Basic realm="bigtcp-agent", charset="UTF-8"'
    return text_response(status, f"{status.phrase}\n", **headers)


def _credentials(header: str) -> tuple[str, bytes]:
    """Name and password of HTTP's basic authentication; no name where it is none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
        name, colon, password = decoded.partition(b":")
        return (name.decode() if colon else ""), password
    except (binascii.Error, UnicodeError):
        return "", b""


def _san(kind: str, value: str) -> str:
    """As Go writes it; OpenSSL writes IPv6 addresses in full."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(value)) if kind == "IP Address" else value
    return value


def _signature(path: str) -> object:
    """Changes when a file does, also by a new target of a symbolic link."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Path of a file in memory: ssl reads certificates from files only."""
    with open(os.memfd_create("pem"), "wb", buffering=0) as file:
        file.write(content)
        yield f"/proc/self/fd/{file.fileno()}"


def read(path: str) -> WebConfig:
    """The file, files in it relative to its folder; BadValueError otherwise."""
    try:
        content = read_regular_file(path, _MAX_FILE_BYTES)
        values = yaml.load(content, _Loader)  # noqa: S506  a SafeLoader
        config = msgspec.convert({} if values is None else values, WebConfig)
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as err:
        raise BadValueError(f"--web-config {path}: {_reason(err)}", _MANUAL) from err
    except (yaml.YAMLError, RecursionError) as err:
        mark = getattr(err, "problem_mark", None)
        where = f", line {mark.line + 1}: {getattr(err, 'problem', '')}" if mark else ""
        message = f"--web-config {path}: not valid YAML{where}"
        raise BadValueError(message, _MANUAL) from err
    if config.tls is None:
        return config
    folder = os.path.dirname(path)
    names = ("cert_file", "key_file", "client_ca_file")
    paths = {name: getattr(config.tls, name) for name in names}
    paths = {name: os.path.join(folder, path) for name, path in paths.items() if path}
    tls = msgspec.structs.replace(config.tls, **paths)
    return msgspec.structs.replace(config, tls_server_config=tls)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it is untyped
    """Refuses a key that stands twice: which of them would count?"""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; msgspec.ValidationError where a key stands twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise msgspec.ValidationError(f"the key {twice[0]!r} is there twice")
        return dict(super().construct_mapping(node, deep))


def _reason(err: Exception) -> str:
    """In one line, with the place in the file first."""
    if isinstance(err, OSError):
        text = err.strerror or str(err)
        return text[:1].lower() + text[1:]
    if isinstance(err, UnicodeError):
        return "not valid YAML"
    if not isinstance(err, msgspec.ValidationError):
        return "a value is not valid for its YAML type"
    return reason(err)
