# SPDX-License-Identifier: Apache-2.0
"""Who may ask the agent: its web config applied, and applied anew when it changes."""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

import bcrypt
import structlog

from agent.errors import BadValueError
from agent.views import webconfig
from agent.views.answer import WsgiApp, answer
from agent.views.places import Turns

_log = structlog.get_logger(__name__)

# For kubelet and load balancers, which have neither password nor certificate.
_OPEN = ("/livez", "/readyz")
# One after the other, so that a flood of guesses takes one CPU at most; more in line,
# or of one address, would keep a scrape waiting until it gives up.
_MOST_WAITING = 8
_MOST_OF_ONE = 2
_WAIT_SECONDS = 5.0


class Guard:
    """What a web config file asks for.

    It and the files it names are looked at for each connection; where they have
    changed and cannot be used, the last good ones stay and the log says so once.
    BadValueError where the first cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._guesses = Turns(
            1, _MOST_OF_ONE, line=_MOST_WAITING, seconds=_WAIT_SECONDS
        )
        self._secret = secrets.token_bytes(32)
        self._known: set[bytes] = set()  # right passwords, by their tokens
        self._config, self._context = self._read()

    def context(self) -> ssl.SSLContext | None:
        """For the next connection; None: it is not encrypted."""
        with self._lock:
            self._renew()
            return self._context

    def guarding(self, app: WsgiApp) -> WsgiApp:
        """The application for those alone who may ask; probes always may."""

        def guarded(
            environ: dict[str, str], start: Callable[..., object]
        ) -> Iterable[bytes]:
            status = self._refusal(environ)
            if status is None:
                return app(environ, start)
            more = {}
            if status == HTTPStatus.UNAUTHORIZED:
                more["WWW_Authenticate"] = 'Basic realm="bigtcp-agent", charset="UTF-8"'
            return answer(environ, start, status, f"{status.phrase}\n", **more)

        return guarded

    def _refusal(self, environ: dict[str, str]) -> HTTPStatus | None:
        if environ["PATH_INFO"] in _OPEN:
            return None
        with self._lock:
            self._renew()
            config, known = self._config, self._known
        wants = config.tls.client_auth if config.tls else ssl.CERT_NONE
        if wants == ssl.CERT_REQUIRED and environ["SSL_CLIENT_VERIFY"] != "SUCCESS":
            return HTTPStatus.FORBIDDEN
        return self._stranger(config, known, environ) if config.users else None

    def _stranger(
        self, config: webconfig.WebConfig, known: set[bytes], environ: dict[str, str]
    ) -> HTTPStatus | None:
        name, password = _credentials(environ.get("HTTP_AUTHORIZATION", ""))
        if not name:
            return HTTPStatus.UNAUTHORIZED
        # bcrypt is slow by design: a scraper pays for it once.
        told = name.encode() + b"\0" + password
        token = hmac.digest(self._secret, told, hashlib.sha256)
        if token in known:
            return None
        expected = config.users.get(name)
        try:
            with self._guesses.one(environ.get("REMOTE_ADDR", "")):
                right = bcrypt.checkpw(password, expected or _nobody(config.users))
        except ValueError:  # longer than bcrypt takes
            return HTTPStatus.UNAUTHORIZED
        except OSError:  # too many
            return HTTPStatus.SERVICE_UNAVAILABLE
        if right and expected is not None:
            known.add(token)
            return None
        return HTTPStatus.UNAUTHORIZED

    def _renew(self) -> None:
        if all(_version(path) == version for path, version in self._seen.items()):
            return
        try:
            config, context = self._read()
            self._require_same_scheme(context)
            self._require_no_less(config)
        except BadValueError as err:
            _log.error("web config not renewed", error=err.message)
        else:
            if config.users != self._config.users:
                self._known = set()
            self._config, self._context = config, context
            _log.info("web config renewed")

    def _require_same_scheme(self, context: ssl.SSLContext | None) -> None:
        if (context is None) != (self._context is None):
            raise BadValueError(
                f"--web-config {self._path}: TLS cannot be switched on or off now",
                "restart the agent",
            )

    def _require_no_less(self, config: webconfig.WebConfig) -> None:
        """A file that is empty while it is saved must not open the door."""
        before, now = self._config.tls, config.tls
        asked = before is not None and before.client_auth != ssl.CERT_NONE
        asks = now is not None and now.client_auth != ssl.CERT_NONE
        if (self._config.users and not config.users) or (asked and not asks):
            raise BadValueError(
                f"--web-config {self._path}: passwords or certificates of clients "
                "cannot be given up now",
                "restart the agent",
            )

    def _read(self) -> tuple[webconfig.WebConfig, ssl.SSLContext | None]:
        # Looked at before they are read: what changes meanwhile is read again.
        self._seen = {self._path: _version(self._path)}
        config = webconfig.read(self._path)
        if not config.tls:
            return config, None
        self._seen |= {path: _version(path) for path in config.tls.files}
        try:
            return config, config.tls.context()
        except (OSError, ValueError) as err:
            told = str(
                getattr(err, "reason", None) or getattr(err, "strerror", "") or err
            )
            raise BadValueError(
                f"--web-config {self._path}: {' or '.join(config.tls.files)} cannot "
                f"be used: {told.lower().replace('_', ' ')}",
                "they are a certificate, its key without a password, and the "
                "clients' authority, in PEM",
            ) from err


def _version(path: str) -> tuple[int, int, int] | None:
    """Changes when a file does, also by a new target of a symbolic link."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _nobody(users: Mapping[str, bytes]) -> bytes:
    """A hash of no user: a name that is unknown takes as long as a wrong password of
    the one whose hash is slowest.
    """
    cost = max(hashed.split(b"$")[2] for hashed in users.values())
    return b"$2b$%s$%s" % (cost, b"." * 53)


def _credentials(header: str) -> tuple[str, bytes]:
    """Name and password of HTTP's basic authentication; no name where it is none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        said = base64.b64decode(encoded.strip(), validate=True)
        name, colon, password = said.partition(b":")
        return (name.decode() if colon else ""), password
    except (binascii.Error, UnicodeError):
        return "", b""
