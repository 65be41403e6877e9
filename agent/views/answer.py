# SPDX-License-Identifier: Apache-2.0
"""A short answer over HTTP, as WSGI wants it."""

from collections.abc import Callable, Iterable
from http import HTTPStatus

WsgiApp = Callable[..., Iterable[bytes]]


def answer(
    environ: dict[str, str],
    start: Callable[..., object],
    status: HTTPStatus,
    text: str,
    kind: str = "text/plain",
    **headers: str,
) -> list[bytes]:
    """Begin the answer, and give its body; none to HEAD. `kind` is a media type,
    `headers` are more of them, with _ for -.
    """
    body = text.encode()
    said = [
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        *((name.replace("_", "-"), value) for name, value in headers.items()),
    ]
    start(f"{status.value} {status.phrase}", said)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
