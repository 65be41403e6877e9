# SPDX-License-Identifier: Apache-2.0
"""A netserver elsewhere: where is it, and does it answer?"""

import ipaddress
import queue
import socket
import threading

from agent.errors import AgentError
from agent.snapshot.model import Family

_CONNECT_SECONDS = 5.0
_NAME_SECONDS = 20.0
_FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def addresses(host: str, wanted: tuple[Family, ...]) -> dict[Family, str]:
    """The first address of each family that is wanted and that `host` has.

    AgentError where it has none of them, or where nobody knows the name.
    """
    found: dict[Family, str] = {}
    try:
        entries = _getaddrinfo(host)
    except (socket.gaierror, UnicodeError) as err:
        why = getattr(err, "strerror", None) or "not a host name"
        raise AgentError(
            f"--server: {host} is not known: {why[:1].lower()}{why[1:]}",
            "is the name right? from a pod, a Service is NAME.NAMESPACE.svc",
        ) from err
    for family in wanted:
        its = [at for kind, at in entries if kind == _FAMILIES[family]]
        if its:
            found[family] = its[0]
    if not found:
        raise AgentError(
            f"--server: {host} has no {' or '.join(wanted)} address",
            "choose another --family, or give an address",
        )
    return found


def _getaddrinfo(host: str) -> list[tuple[int, str]]:
    """Families and addresses. In a thread: the C library heeds no signal, and asks
    silent name servers for a minute.
    """
    answer: queue.Queue[list[tuple[int, str]] | Exception] = queue.Queue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as err:
            answer.put(err)
        else:
            answer.put([(entry[0], str(entry[4][0])) for entry in found])

    threading.Thread(target=ask, daemon=True).start()
    try:
        said = answer.get(timeout=_NAME_SECONDS)
    except queue.Empty:
        raise AgentError(
            f"--server: no name server told of {host} in {_NAME_SECONDS:.0f} s",
            "see /etc/resolv.conf, or give an address",
        ) from None
    if isinstance(said, Exception):
        raise said
    return said


def require_answer(address: str, port: int) -> None:
    """AgentError, which says why, unless somebody listens there."""
    try:
        with socket.create_connection((address, port), _CONNECT_SECONDS):
            return
    except OSError as err:
        why = (
            f"no answer in {_CONNECT_SECONDS:.0f} s"
            if isinstance(err, TimeoutError)
            else (err.strerror or str(err)).lower()
        )
        family = f"ipv{ipaddress.ip_address(address).version}"
        raise AgentError(
            f"no netserver at {address} port {port}: {why}",
            "start `netserver -D` there and let the port through; "
            f"or is there no {family} on the way? see --family",
        ) from err
