# SPDX-License-Identifier: Apache-2.0
"""The web config file of Prometheus' exporters: TLS and passwords for /metrics.

The format is exporter-toolkit's. What we cannot do is refused, never ignored: a
key that was skipped would be a door left open.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import yaml

from agent.errors import BadValueError

# Go's names. What asks for a certificate without checking it, or checks none of
# its chain (RequestClientCert, RequireAnyClientCert), OpenSSL has no mode for.
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_MANUAL = "the format is that of exporter-toolkit's web configuration"


class _Error(Exception):
    """What is wrong, told from the place in the file on."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How connections are encrypted; `client_ca_file` is "" where none is named."""

    cert_file: str
    key_file: str
    client_ca_file: str
    client_auth: ssl.VerifyMode
    min_version: ssl.TLSVersion

    @property
    def files(self) -> tuple[str, ...]:
        """All that a context is made from."""
        return tuple(
            path
            for path in (self.cert_file, self.key_file, self.client_ca_file)
            if path
        )

    def context(self) -> ssl.SSLContext:
        """For a server. OSError where a file is missing or none of its kind."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self.min_version
        # An encrypted key must fail: OpenSSL would ask on the terminal.
        context.load_cert_chain(self.cert_file, self.key_file, password="")
        if self.client_ca_file:
            context.load_verify_locations(self.client_ca_file)
        # Who must show a certificate is asked for it here and refused by the
        # application: the kubelet has none to show when it probes.
        if self.client_auth != ssl.CERT_NONE:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says. `users` are bcrypt hashes by name; none: no password."""

    tls: Tls | None
    users: Mapping[str, bytes]


def read(path: str) -> WebConfig:
    """The file, files in it relative to its folder; BadValueError otherwise."""
    try:
        with open(path, encoding="utf-8") as file:
            found = _yaml(file)
        return _config(found, os.path.dirname(path))
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError, _Error) as err:
        raise BadValueError(f"--web-config {path}: {_line(err)}", _MANUAL) from err


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it is untyped
    """Refuses a key that stands twice: which of them would count?"""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """See there."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise _Error(f"{twice[0]!r} stands there twice")
        return dict(super().construct_mapping(node, deep))


def _yaml(file: TextIO) -> Any:
    try:
        return yaml.load(file, _Loader)  # noqa: S506  a SafeLoader
    except (_Error, UnicodeError):
        raise
    except (ValueError, LookupError, AttributeError, TypeError) as err:
        raise _Error("a value in it makes no sense") from err


def _line(err: BaseException) -> str:
    if isinstance(err, yaml.MarkedYAMLError) and err.problem and err.problem_mark:
        return f"no YAML, line {err.problem_mark.line + 1}: {err.problem}"
    if isinstance(err, yaml.YAMLError | UnicodeError | RecursionError):
        return "no YAML"
    told = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return told[:1].lower() + told[1:]


def _config(found: Any, folder: str) -> WebConfig:
    found = {} if found is None else found
    top = _mapping(found, "the file", {"tls_server_config", "basic_auth_users"})
    tls = top.get("tls_server_config")
    users = top.get("basic_auth_users")
    users = _mapping({} if users is None else users, "basic_auth_users", None)
    for name, value in users.items():
        if not isinstance(value, str) or not _BCRYPT.fullmatch(value):
            raise _Error(f"the password of {name!r} is no bcrypt hash")
        if not name or ":" in name:
            raise _Error(f"basic_auth_users: {name!r} is no user name")
    return WebConfig(
        None if tls is None else _tls(tls, folder),
        {name: value.encode() for name, value in users.items()},
    )


def _tls(found: Any, folder: str) -> Tls:
    where = "tls_server_config"
    keys = {"cert_file", "key_file", "client_ca_file", "client_auth_type"}
    tls = _mapping(found, where, keys | {"min_version"})
    for key, value in tls.items():
        if not isinstance(value, str):
            raise _Error(f"{where}.{key} is no text")
    for key in ("cert_file", "key_file"):
        if not tls.get(key):
            raise _Error(f"{where}.{key} is missing")
    client_auth = _one_of(_CLIENT_AUTH, tls, "client_auth_type", "NoClientCert")
    client_ca = tls.get("client_ca_file", "")
    if client_auth == ssl.CERT_NONE and client_ca:
        raise _Error(f"{where}.client_ca_file is of no use without client_auth_type")
    if client_auth != ssl.CERT_NONE and not client_ca:
        raise _Error(f"{where}.client_ca_file is missing: who signs the clients'?")
    return Tls(
        os.path.join(folder, tls["cert_file"]),
        os.path.join(folder, tls["key_file"]),
        os.path.join(folder, client_ca) if client_ca else "",
        client_auth,
        _one_of(_VERSIONS, tls, "min_version", "TLS12"),
    )


def _mapping(found: Any, where: str, known: set[str] | None) -> dict[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise _Error(f"{where} is no mapping of names")
    for key in found:
        if known is not None and key not in known:
            raise _Error(
                f"{where}: {key!r} is not supported (only {', '.join(sorted(known))})"
            )
    return found


def _one_of(
    names: Mapping[str, Any], tls: dict[str, Any], key: str, default: str
) -> Any:
    value = tls.get(key) or default
    if value not in names:
        raise _Error(
            f"tls_server_config.{key} {value!r} is not supported "
            f"(only {', '.join(names)})"
        )
    return names[value]
