# SPDX-License-Identifier: Apache-2.0
"""Whatever Cilium's socket or files hold, reading takes less than 100 MiB."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cluster.cilium import read_applied
from tests.sources.agent import URLS, agent, answering, http, pod_endpoint, recorded

MAX_GROWTH = 100 << 20
MOST = 16 << 20
# In a process whose memory is nobody else's. VmHWM counts from its exec on, getrusage
# from its parent's size; writing 5 sets VmHWM to what is resident now.
CHILD = """
import re, sys
from pathlib import Path
from agent.cluster import cilium
def kib(name):
    status = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+)", status)[1])
cilium.read_applied(sys.argv[2], seconds=60)  # imports, and a first answer
Path("/proc/self/clear_refs").write_text("5")
before = kib("VmRSS")
try:
    found = getattr(cilium, sys.argv[1])(
        sys.argv[3], **({"seconds": 60} if sys.argv[1] == "read_applied" else {}))
    told = "understood"
except OSError as err:
    told = str(err)
print((kib("VmHWM") - before) << 10, told)
"""
GOOD = recorded("1.20.2")["on"]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def filled(start: bytes, piece: bytes, end: bytes) -> bytes:
    """As many pieces as 16 MiB hold."""
    times = (MOST - len(start) - len(end)) // len(piece)
    return start + (piece * times).removesuffix(b",") + end


def some(start: bytes, piece: bytes, end: bytes, times: int) -> bytes:
    """So many pieces, which are just within the limits of decode()."""
    return start + (piece * times).removesuffix(b",") + end


DEVICES = b'{"kube-proxy-replacement":{"devices":['
LABELS = b'[{"id":1,"status":{"identity":{"labels":['
TEXT = b'{"cilium":{"msg":"'
WIDE = "\U0001f600".encode()
TOO_MANY = "too many objects or strings"
NOT_ASCII = "not all ASCII"
LONG = "length <= 65536"
LISTED = "length <= 4096"
# By URL: an answer, and the sentence of it.
BOMBS: dict[str, tuple[str, bytes, str]] = {
    "lists": ("/v1/endpoint", filled(b"[", b"[],", b"]"), "expected `object | null`"),
    "lists in a field": ("/v1/healthz", filled(b'{"x":[', b"[],", b"]}"), "understood"),
    "objects": ("/v1/endpoint", filled(b"[", b"{},", b"]"), TOO_MANY),
    "objects, some": ("/v1/endpoint", some(b"[", b"{},", b"]", 500_000), "<= 10000"),
    "objects and a number": (
        *("/v1/endpoint", some(b"[7,", b"{},", b"]", 499_000), "<= 10000"),
    ),
    "nulls": ("/v1/endpoint", filled(b"[", b"null,", b"]"), "<= 10000"),
    "numbers": ("/v1/endpoint", filled(b"[", b"1,", b"]"), "expected `object | null`"),
    "devices": ("/v1/healthz", filled(DEVICES, b'"ab",', b"]}}"), TOO_MANY),
    "devices, some": (
        *("/v1/healthz", some(DEVICES, b'"abcdefg",', b"]}}", 499_000), LISTED),
    ),
    "labels, some": (
        *("/v1/endpoint", some(LABELS, b'"ab",', b"]}}}]", 499_000), "understood"),
    ),
    "keys": ("/v1/config", filled(b"{", b'"ab":1,', b"}"), TOO_MANY),
    "deep lists": ("/v1/healthz", filled(b'{"x":', b"[", b""), "not JSON"),
    "deep objects": ("/v1/healthz", some(b"", b'{"x":', b"", 400_000), "not JSON"),
    "text": ("/v1/healthz", filled(TEXT, b"x", b'"}}'), LONG),
    "deleted": ("/v1/healthz", filled(TEXT, b"\x7f", b'"}}'), LONG),
    "wide first": ("/v1/healthz", filled(TEXT + WIDE, b"x", b'"}}'), NOT_ASCII),
    "wide last": ("/v1/healthz", filled(TEXT, b"x", WIDE + b'"}}'), NOT_ASCII),
    "wide by its number": (
        *("/v1/healthz", filled(TEXT, b"x", b'\\ud83d\\ude00"}}'), NOT_ASCII),
    ),
    "wide, less": (
        "/v1/healthz",
        TEXT + b"x" * (3 << 20) + "é".encode() + WIDE + b'"}}',
        LONG,
    ),
    "a key": ("/v1/healthz", filled(b'{"', b"x", b'":1}'), "understood"),
    "a number": (
        "/v1/config",
        filled(b'{"status":{"deviceMTU":', b"1", b"}}"),
        "Cilium",
    ),
}


def measured(read: str, folder: Path, path: Path, send: Callable[..., None]) -> str:
    """The sentence of a child that reads `path`, which took less than 100 MiB."""
    good = folder / "good.sock"

    def well(url: str, sent: Callable[[bytes], None]) -> None:
        sent(http(json.dumps(GOOD[url]).encode()))

    with agent(good, well), agent(folder / "bomb.sock", send):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, read, str(good), str(path)],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    growth, _, told = done.stdout.strip().partition(" ")
    assert int(growth) < MAX_GROWTH, done.stdout
    assert "\n" not in told
    return told


def told(answers: dict[str, bytes], folder: Path) -> str:
    """Of whole HTTP answers by URL, good ones elsewhere."""

    def behave(url: str, send: Callable[[bytes], None]) -> None:
        send(answers.get(url) or http(json.dumps(GOOD[url]).encode()))

    return measured("read_applied", folder, folder / "bomb.sock", behave)


@pytest.mark.parametrize("name", BOMBS)
def test_an_answer(name: str, tmp_path: Path) -> None:
    url, body, sentence = BOMBS[name]
    assert len(body) <= MOST
    assert sentence in told({url: http(body)}, tmp_path)


def test_bombs_in_all_three(tmp_path: Path) -> None:
    """What is kept of one answer counts while the next is read."""
    device = b'"' + b"x" * 4000 + b'",'
    flags = b'{"status":{"daemonConfigurationMap":{"RoutingMode":"'
    labels = some(LABELS[1:], b'"ab",', b"]}}},", 4000)
    answers = {
        "/v1/healthz": http(some(DEVICES, device, b"]}}", 4096)),
        "/v1/config": http(filled(flags, b"x", b'"}}}')),
        "/v1/endpoint": http(some(b"[", labels, b"]", 120)),
    }
    assert told(answers, tmp_path) == "understood"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (CHUNKED + b"2\r\n[]\r\n" * 4_700_000, "no whole HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * (20 << 20), "longer than"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b" + b"\0" * 999,
            "content encoding",
        ),
    ],
    ids=["chunks", "endless", "gzip"],
)
def test_http(answer: bytes, sentence: str, tmp_path: Path) -> None:
    found = told({"/v1/healthz": answer}, tmp_path)
    assert sentence in found


@pytest.mark.parametrize(
    "data",
    [
        filled(b'{"RoutingMode":"', b"x", b'"}'),
        filled(b'{"RoutingMode":[', b"[],", b"]}"),
        filled(b"{", b'"ab":1,', b"}"),
        filled(b"", b"[", b""),
    ],
    ids=["text", "lists", "keys", "deep"],
)
def test_the_runtime_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "agent-runtime-config.json"
    path.write_bytes(data)
    assert measured("read_runtime_config", tmp_path, path, lambda *_: None)


def test_250_pods_with_large_policies(tmp_path: Path) -> None:
    """A real node's answer is long; what we do not read of it costs nothing."""
    identities = list(range(16_777_216, 16_783_216))
    endpoints = [pod_endpoint(at, "default", f"p{at}") for at in range(1, 251)]
    for endpoint in endpoints:
        policy = {"allowed-ingress-identities": identities}
        endpoint["status"]["policy"] = {"realized": policy}
    body = json.dumps(endpoints, separators=(",", ":")).encode()
    assert MOST * 3 // 4 < len(body) <= MOST
    assert told({URLS[2]: http(body)}, tmp_path) == "understood"
    path = tmp_path / "cilium.sock"
    with agent(path, answering({**GOOD, URLS[2]: endpoints})):
        found = read_applied(str(path), seconds=60)
    assert found
    assert [each.pod for each in found.endpoints] == [f"p{at}" for at in range(1, 251)]
