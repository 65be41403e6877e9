# SPDX-License-Identifier: Apache-2.0
"""Hostile HTTP clients, as a process of their own: `python -m tests.attacks.clients`.

Each ends by itself after `seconds`. They connect over and over, bound in number and
rate, and care for no answer.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

from tests.process import any_certificate


@dataclass(frozen=True)
class Attack:
    """What to do against `host`:`port`. `sources` are local addresses, in turns;
    `count` connections are open at once, `rate` new ones are opened a second.
    """

    kind: str
    seconds: float = 3.0
    count: int = 64
    rate: float = 1e9
    sources: tuple[str, ...] = ("",)
    tls: bool = False
    path: str = "/livez"
    host: str = ""
    port: int = 0
    login: str = ""  # NAME:PASSWORD; {} is replaced by a counter
    extra: dict[str, int] = field(default_factory=dict)

    def argv(self) -> list[str]:
        return [sys.executable, "-m", "tests.attacks.clients", json.dumps(asdict(self))]


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_numbers = itertools.count()


async def connect(attack: Attack) -> Streams:
    source = attack.sources[next(_numbers) % len(attack.sources)]
    tls = attack.tls and attack.kind != slow_handshake.__name__
    context: ssl.SSLContext | None = any_certificate() if tls else None
    return await asyncio.open_connection(
        attack.host,
        attack.port,
        ssl=context,
        local_addr=(source, 0) if source else None,
    )


def request(attack: Attack, more: str = "") -> bytes:
    login = ""
    if attack.login:
        text = attack.login.format(next(_numbers)).encode()
        login = f"Authorization: Basic {base64.b64encode(text).decode()}\r\n"
    return f"GET {attack.path} HTTP/1.1\r\nHost: x\r\n{login}{more}\r\n".encode()


async def closed(streams: Streams) -> None:
    """Until the server has closed it."""
    while await streams[0].read(1 << 16):
        pass


async def big_heads(_: Attack, streams: Streams) -> None:
    """99 headers of 64 KB each, then nothing."""
    streams[1].write(b"GET / HTTP/1.1\r\n")
    for number in range(99):
        streams[1].write(b"X-%d: %s\r\n" % (number, b"x" * 65000))
        await streams[1].drain()
    await closed(streams)


async def many_headers(attack: Attack, streams: Streams) -> None:
    """As many headers as 32 KiB take."""
    streams[1].write(request(attack, "a:\r\n" * 8000))
    await closed(streams)


async def silent(_: Attack, streams: Streams) -> None:
    await closed(streams)


async def drip(_: Attack, streams: Streams) -> None:
    """A head that never ends, a byte at a time."""
    streams[1].write(b"GET / HTTP/1.1\r\nX: ")
    while True:
        streams[1].write(b"x")
        await streams[1].drain()
        await asyncio.sleep(0.05)


async def slow_handshake(_: Attack, streams: Streams) -> None:
    """A TLS record of 4 KiB, a byte at a time."""
    streams[1].write(b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc")
    while True:
        streams[1].write(b"x")
        await streams[1].drain()
        await asyncio.sleep(0.05)


async def ask(attack: Attack, streams: Streams) -> None:
    streams[1].write(request(attack, "Connection: close\r\n"))
    await closed(streams)


async def pipeline(attack: Attack, streams: Streams) -> None:
    """Thousands of requests at once, whose answers are not read."""
    streams[0]._transport.pause_reading()  # type: ignore[attr-defined]
    while True:
        streams[1].write(request(attack) * 1000)
        await streams[1].drain()


async def reset(attack: Attack, streams: Streams) -> None:
    streams[1].write(request(attack))
    streams[1].transport.abort()


CLIENTS: dict[str, Callable[[Attack, Streams], Awaitable[None]]] = {
    client.__name__: client
    for client in (
        *(big_heads, many_headers, silent, drip, slow_handshake),
        *(ask, pipeline, reset),
    )
}


async def one(attack: Attack) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        streams = await connect(attack)
        try:
            await CLIENTS[attack.kind](attack, streams)
        finally:
            streams[1].transport.abort()


async def main(attack: Attack) -> None:
    until = time.monotonic() + attack.seconds
    running: set[asyncio.Task[None]] = set()
    begun, started = time.monotonic(), 0
    while time.monotonic() < until:
        due = (time.monotonic() - begun) * attack.rate
        while started < due and len(running) < attack.count:
            task = asyncio.ensure_future(one(attack))
            running.add(task)
            task.add_done_callback(running.discard)
            started += 1
        await asyncio.sleep(0.002)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    print(json.dumps({"connections": started}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(Attack(**json.loads(sys.argv[1]))))
