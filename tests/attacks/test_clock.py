# SPDX-License-Identifier: Apache-2.0
"""A wall clock that jumps by a day, forth and back, while the agent is asked: what it
counts, how fast, and whom it lets in goes by another clock.

The machine's clock is left alone: a library in front of libc's is wrong for the agent.
"""

import contextlib
import json
import mmap
import os
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.lab.netns import wait_until
from tests.attacks.clients import Attack
from tests.attacks.harness import ATTACKERS, Victim, attacked_agent
from tests.attacks.test_http import users, web_config

DAY = 86400
JUMPS = (DAY, -DAY, 0, -DAY, DAY, 0)  # seconds off
ATTACK = Attack("ask", 60, 20, 100, sources=ATTACKERS[:1], path="/metrics")


class Clock:
    """The agent's; `wrapper` is what makes its process read it."""

    def __init__(self, folder: Path) -> None:
        library, offset = folder / "clock.so", folder / "offset"
        source = Path(__file__).with_name("clock.c")
        flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror")
        subprocess.run(["gcc", *flags, "-o", library, source], check=True)
        offset.write_bytes(bytes(8))
        with offset.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)
        self.wrapper = ("env", f"LD_PRELOAD={library}", f"CLOCK_OFFSET={offset}")

    def jump(self, seconds: int) -> None:
        """So far off the machine's clock from now on."""
        struct.pack_into("=q", self._offset, 0, seconds)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@contextlib.contextmanager
def no_traceback(victim: Victim) -> Iterator[None]:
    """In the agent's log, which ends with the agent."""
    yield
    victim.process.terminate()
    assert victim.process.wait(10) == 0
    assert victim.process.stderr
    log = victim.process.stderr.read()
    assert '"counting"' in log
    assert "Traceback" not in log
    assert "request failed" not in log


def counters(victim: Victim) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = victim.get("/metrics")
    assert answer.status == 200
    return {
        (name, frozenset(labels.items())): value
        for metric in text_string_to_metric_families(answer.text)
        if metric.type in ("counter", "histogram")
        for name, labels, value, *_ in metric.samples
    }


def observed(victim: Victim, seconds: float) -> dict[str, object]:
    answer = victim.get(f"/api/snapshot?seconds={seconds}")
    assert answer.status == 200, answer
    found: dict[str, object] = json.loads(answer.text)
    return found


def test_counters_rates_and_probes(clock: Clock) -> None:
    with attacked_agent(wrapper=clock.wrapper) as victim, no_traceback(victim):
        with victim.attacked(ATTACK):
            before = counters(victim)
            uptime = 0.0
            for off in JUMPS:
                clock.jump(off)
                picture = observed(victim, 0.5)
                # The library works: what is meant to be wall time jumps.
                assert picture["taken"] == pytest.approx(time.time() + off, abs=60)
                assert float(str(picture["uptime"])) > uptime
                uptime = float(str(picture["uptime"]))
                recent = picture["recent"]
                assert isinstance(recent, dict)
                assert 0.5 <= recent["seconds"] < 30
                assert not re.search(r": -[0-9]", json.dumps(recent)), recent
                assert victim.get("/readyz").status == 200
                now = counters(victim)
                for key, value in before.items():
                    assert now[key] >= value, key
                before = now
        victim.under(lambda: jumping(clock, victim), 3, "/readyz")


@contextlib.contextmanager
def jumping(clock: Clock, victim: Victim) -> Iterator[None]:
    """Each time anybody asks it is another day."""
    with victim.attacked(ATTACK):
        for off in JUMPS:
            clock.jump(off)
            time.sleep(0.1)
        yield
        clock.jump(0)


def test_a_rate_limit_gives_no_tokens_for_a_jump(clock: Clock, tmp_path: Path) -> None:
    """Nor is anybody shut out for a day because it went back."""
    limit = "rate_limit: {interval: 3s, burst: 2}\n"
    flags = web_config(tmp_path, limit)
    with attacked_agent(*flags, wrapper=clock.wrapper) as victim, no_traceback(victim):
        assert [victim.get("/metrics").status for _ in range(2)] == [200, 200]
        clock.jump(DAY)
        found = [victim.get("/metrics").status for _ in range(4)]
        assert found.count(200) <= 1  # the machine may have taken three seconds
        clock.jump(-DAY)
        wait_until(lambda: victim.get("/metrics").status == 200, "a token", 20)


def test_guesses_wait_and_web_config_is_renewed(clock: Clock, tmp_path: Path) -> None:
    flags = web_config(tmp_path, users(4), tls=True)
    with (
        attacked_agent(
            *flags, wrapper=clock.wrapper, secure=True, login="me:right"
        ) as victim,
        no_traceback(victim),
    ):
        for _ in range(12):  # the wait after the last one is 8 s
            wrong = victim.get("/metrics", login="me:wrong").status
            assert wrong in (401, 429)
        clock.jump(DAY)
        statuses = {victim.get("/metrics", login="me:wrong").status for _ in range(3)}
        assert 429 in statuses
        for off in JUMPS:
            clock.jump(off)
            # Another certificate each time, dated as the agent's clock says.
            web_config(tmp_path, users(4), tls=True)
            os.utime(tmp_path / "web.yaml", (time.time() + off,) * 2)
            wait_until(
                lambda: victim.get("/metrics").status == 200, "the right one", 20
            )
            shown = victim.outside.call(lambda: certificate(victim))
            assert shown == (tmp_path / "server.crt").read_text()


def certificate(victim: Victim) -> str:
    """What the agent shows, in PEM."""
    import ssl

    return ssl.get_server_certificate(("192.0.2.2", victim.port))
