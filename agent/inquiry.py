# SPDX-License-Identifier: Apache-2.0
"""Asks the agent that runs here; where there is none, looks by itself."""

import contextlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from agent.errors import AgentError, BadValueError, Exit, KernelError
from agent.settings import Cluster, is_ipv6
from agent.snapshot.model import Hook
from agent.snapshot.plain import plain_json, plainly
from agent.snapshot.schema import SCHEMA

LOCAL_AGENT = "http://127.0.0.1:19715"
_SHUT = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)  # by its --web-config
_PATIENCE_SECONDS = 10.0
_MOST_BYTES = 64 << 20
_REFUSAL_BYTES = 200
_OWN_SECONDS = 2.0  # to observe for, with probes that begin now
_HOOKS = (Hook.NET_DEV_START_XMIT, Hook.NETIF_RECEIVE_SKB, Hook.NET_DEV_QUEUE)

Picture = dict[str, Any]
_Answer = http.client.HTTPResponse | urllib.error.HTTPError


@dataclass(frozen=True, slots=True)
class Asked:
    """Who answers, and how to ask again: for the picture `now`, or for one that was
    `observed` for so many seconds (None: what is lately there).
    """

    who: str
    now: Callable[[], Picture]
    observed: Callable[[float | None], Picture]


class UnreachableError(AgentError):
    """No agent answers, and we cannot look ourselves."""

    exit_code = Exit.UNREACHABLE


def _pieces(answer: _Answer, until: float) -> Iterator[bytes]:
    """All of it, as it comes; TimeoutError where it drips."""
    while piece := answer.read1(1 << 16):
        yield piece
        if time.monotonic() > until:
            raise TimeoutError("its answer does not end")


def _body(answer: _Answer, until: float) -> bytes:
    """All of it; ValueError where it has no end, TimeoutError where it drips."""
    pieces, size = [], 0
    for piece in _pieces(answer, until):
        pieces.append(piece)
        size += len(piece)
        if size > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES >> 20} MiB")
    return b"".join(pieces)


def _refusal(answer: _Answer, until: float) -> str:
    """How it begins, or as much of that as comes."""
    said = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        for piece in _pieces(answer, until):
            said += piece
            if len(said) >= _REFUSAL_BYTES:
                break
    return said[:_REFUSAL_BYTES].decode(errors="replace").strip()


def fetch(url: str, seconds: float | None) -> dict[str, Any]:
    """The picture that an agent serves; OSError where none answers."""
    query = f"?seconds={seconds}" if seconds else ""
    address = f"{url.rstrip('/')}/api/snapshot{query}"
    patience = _PATIENCE_SECONDS + (seconds or 0)
    # No proxy: an agent is on this node, or named by its address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=patience) as answer:
            found = plain_json(_body(answer, time.monotonic() + patience))
    except urllib.error.HTTPError as err:
        with err:
            said = _refusal(err, time.monotonic() + patience)
        if err.code in _SHUT:
            raise PermissionError(
                f"it asks who we are: {err.code} {err.reason}"
            ) from err
        raise AgentError(
            f"{url} answered {err.code}: {said}", "is this the agent's address?"
        ) from err
    except http.client.RemoteDisconnected:
        raise  # as one does that speaks TLS alone
    except (ValueError, RecursionError, http.client.HTTPException) as err:
        raise AgentError(
            f"{url} did not answer as an agent does: {err}",
            "is this the agent's address?",
        ) from err
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise AgentError(
            f"{url} speaks another schema than {SCHEMA}",
            "use the bigtcp-agent of the same version",
        )
    return found


def why(err: OSError) -> str:
    """Why `fetch` got no answer, in words: urllib wraps errors, and has numbers."""
    reason = getattr(err, "reason", err)
    said = getattr(reason, "strerror", None) or str(reason)
    return said[:1].lower() + said[1:]


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  ValueError where it is none
    except ValueError:
        return False
    host = bool(re.fullmatch(r"[\w.:-]+", parts.hostname or "", re.ASCII))
    return parts.scheme in ("http", "https") and host


def address(url: str) -> str:
    """The address of an agent, as URLs have it; BadValueError where it is none.

    The brackets of an IPv6 address with a port may be missing: a manifest puts the
    node's address between scheme and port, and cannot tell its family.
    """
    bare = re.fullmatch(r"(https?://)([0-9a-fA-F:.]+)(:[0-9]+/?)", url)
    if bare and is_ipv6(bare[2]):
        url = f"{bare[1]}[{bare[2]}]{bare[3]}"
    if not _is_address(url):
        raise BadValueError(
            f"--url {url!r} is no address of an agent",
            "use http://HOST:PORT, such as http://127.0.0.1:19715",
        )
    return url


@contextlib.contextmanager
def asked(url: str | None, where: Cluster) -> Iterator[Asked]:
    """Give what answers: the agent at `url` or, without one, the agent of this node
    or our own probes. UnreachableError where none can.
    """
    url_given = url is not None
    url = address(LOCAL_AGENT if url is None else url)
    try:
        fetch(url, None)
    except OSError as err:
        unreachable = why(err)
    else:
        yield Asked(
            f"the agent at {url}",
            lambda: _again(url, None),
            lambda seconds: _again(url, seconds),
        )
        return
    if url_given:
        raise UnreachableError(
            f"no agent answers at {url} ({unreachable})",
            "is it running there? without --url we look with probes of our own",
        )
    from agent import logs
    from agent.node import opened
    from agent.views.picture import picture

    logs.silence()
    with contextlib.ExitStack() as stack:
        try:
            node = stack.enter_context(opened(_HOOKS, where))
        except KernelError as err:
            raise UnreachableError(
                f"no agent answers at {url} ({unreachable}), and we cannot look "
                f"ourselves: {err.message}",
                f"give the agent's address with --url; or: {err.hint}",
            ) from err
        collector = node.collector
        yield Asked(
            "our own probes",
            lambda: plainly(picture(collector.snapshot())),
            lambda seconds: plainly(
                picture(collector.observe(seconds or _OWN_SECONDS, time.sleep))
            ),
        )


def _again(url: str, seconds: float | None) -> dict[str, Any]:
    try:
        return fetch(url, seconds)
    except OSError as err:
        raise UnreachableError(
            f"the agent at {url} answers no more: {why(err)}",
            "see its log, then try again",
        ) from err
