# SPDX-License-Identifier: Apache-2.0
"""A Cilium socket that lies, stalls, floods or breaks off: one sentence, in time."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cluster.cilium import read_applied
from agent.cluster.relay import Relay
from agent.snapshot.cilium import Applied
from tests.sources.agent import (
    Behaviour,
    agent,
    answering,
    http,
    recorded,
    understood,
)

GOOD = recorded("1.20.2")["on"]
Send = Callable[[bytes], None]


def drip(head: bytes) -> Behaviour:
    """One byte each 20 ms, for ever."""

    def behave(_: str, send: Send) -> None:
        send(head)
        pause = threading.Event()
        while not pause.wait(0.02):
            send(b" ")

    return behave


def flood(head: bytes, piece: bytes) -> Behaviour:
    def behave(_: str, send: Send) -> None:
        send(head)
        while True:
            send(piece)

    return behave


def says(answer: bytes) -> Behaviour:
    return lambda _, send: send(answer)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NO_HTTP = "no whole HTTP answer"
NO_OBJECT = "Expected `object`, got"
ENOUGH = "longer than|without end|no answer within"  # whichever comes first


def is_told(behave: Behaviour, sentence: str, folder: Path, seconds: float) -> None:
    """Of a Cilium that behaves so this sentence is told, and no other: to who asks
    it, and to who has it asked.
    """
    path = folder / "cilium.sock"
    with agent(path, behave), Relay(str(path)) as relay:
        for through in (None, relay):
            with pytest.raises(OSError, match=sentence) as caught:
                read_applied(str(path), seconds=seconds, most=1_000_000, relay=through)
            assert "cilium.sock" in str(caught.value) or "Cilium" in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("behave", "sentence"),
    [
        (says(b""), NO_HTTP),
        (says(b"hello\r\n\r\n"), NO_HTTP),
        (says(b"\x00" * 100_000), NO_HTTP),
        (says(OK + b"X: y\r\n" * 1000 + b"\r\n"), NO_HTTP),
        (says(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"), NO_HTTP),
        (says(CHUNKED + b"5\r\n{"), NO_HTTP),
        (says(http(b"{}", "503 Service Unavailable")), "answers 503"),
        (says(http(b"{}", "301 Moved Permanently")), "answers 301"),
        (says(http(b"{}", length=700)), "ends 698 bytes too soon"),
        (says(http(b"x" * 3000, length=10**15)), "bytes too soon|longer than"),
        (says(http(b" " * 3_000_000)), "longer than 1,000,000 bytes"),
        (says(http(b"")), "not JSON"),
        (says(http(b"<html>")), "not JSON"),
        (says(http(b"\xff\xfe")), "not JSON"),
        (says(http(b"[" * 200_000)), NO_OBJECT),
        (says(http(b"[]")), NO_OBJECT),
        (says(http(b"1" * 10_000)), "Number out of range"),
    ],
)
def test_one_sentence(behave: Behaviour, sentence: str, tmp_path: Path) -> None:
    is_told(behave, sentence, tmp_path, seconds=30)


@pytest.mark.parametrize(
    ("behave", "sentence"),
    [
        (flood(OK + b"\r\n", b" " * 65536), ENOUGH),
        (flood(CHUNKED, b"1\r\n \r\n"), ENOUGH),
        (flood(CHUNKED + b"-1\r\n", b" " * 65536), f"{ENOUGH}|{NO_HTTP}"),
        (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), ENOUGH),
        (drip(b""), "no answer within"),
        (drip(OK), "no answer within"),
        (drip(OK + b"\r\n"), "no answer within"),
        (drip(CHUNKED + b"100000\r\n"), "no answer within"),
    ],
)
def test_one_sentence_in_time(behave: Behaviour, sentence: str, tmp_path: Path) -> None:
    """Of an answer that never ends."""
    began = time.monotonic()
    is_told(behave, sentence, tmp_path, seconds=0.5)
    assert time.monotonic() - began < 30


def test_the_deadline_is_for_all_three(tmp_path: Path) -> None:
    path = tmp_path / "cilium.sock"
    now = [0.0]

    def behave(url: str, send: Send) -> None:
        now[0] += 1.6  # seconds
        send(http(json.dumps(GOOD[url]).encode()))

    with agent(path, behave), pytest.raises(OSError, match="within 3 s"):
        read_applied(str(path), seconds=3, monotonic=lambda: now[0])


def test_twenty_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "cilium.sock"
    big = says(http(b'{"a": "' + b"x" * (20 << 20) + b'"}'))
    with agent(path, big), pytest.raises(OSError, match="longer than 16,777,216 bytes"):
        read_applied(str(path), seconds=30)


@pytest.mark.parametrize("through", ["itself", "a relay"])
def test_no_socket_is_absent_and_a_dead_one_has_failed(
    through: str, tmp_path: Path
) -> None:
    path = tmp_path / "cilium.sock"
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Relay(str(path))) if through == "a relay" else None

        def read() -> Applied | None:
            return read_applied(str(path), seconds=30, relay=relay)

        assert read() is None
        with agent(path, answering(GOOD)):
            assert read()
        with pytest.raises(OSError, match="nobody listens"):
            read()
        path.unlink()
        assert read() is None


@pytest.mark.parametrize("kind", ["file", "folder", "loop", "long"])
def test_a_path_that_is_no_socket(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120 if kind == "long" else "cilium.sock")
    match kind:
        case "file":
            path.write_text("")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
    with Relay(str(path)) as relay:
        for through in (None, relay):
            with pytest.raises(OSError, match="GET /v1/healthz at"):
                read_applied(str(path), seconds=30, relay=through)


def test_replaced_while_running(tmp_path: Path) -> None:
    """A Cilium that restarts makes a new socket under the same name."""
    path = tmp_path / "cilium.sock"
    for version in ("1.15.19", "1.20.2"):
        with agent(path, answering(recorded(version)["on"])):
            found = read_applied(str(path), seconds=30)
        assert found
        assert found.version == version


def test_gone_between_two_questions(tmp_path: Path) -> None:
    path = tmp_path / "cilium.sock"

    def behave(url: str, send: Send) -> None:
        path.unlink()
        send(http(json.dumps(GOOD[url]).encode()))

    with agent(path, behave), pytest.raises(OSError, match="went away"):
        read_applied(str(path), seconds=30)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        inner = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [at, *(place for key, one in inner for place in places(one, (*at, key)))]


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """The same with something else at one place."""
    if not at:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[at[0]] = put(value[at[0]], at[1:], new)
    return copy


@given(data=st.data())
def test_anything_anywhere(data: st.DataObject) -> None:
    """Understood, or one OSError; what is understood can be printed."""
    answers: Any = GOOD
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(places(answers)[4:]))
        answers = put(answers, at, data.draw(ANY))
    text = json.dumps(answers)
    again = json.loads(text)
    try:
        found = understood(again)
    except OSError as err:
        assert str(err).isprintable()  # noqa: PT017  both ends are fine
    else:
        assert repr(found).isprintable()
        str(found.endpoints).encode()
