# SPDX-License-Identifier: Apache-2.0
"""The real agent, with the memory that the chart gives it, while it is attacked.

`attacked_agent()` runs it in a network namespace; `Victim.under()` runs attacks from
another one and asserts meanwhile that /livez and /metrics answer rightly within a
second, and that the agent stays below 150 MiB. An attack on another input of the
agent is any context manager.
"""

import contextlib
import http.client
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from agent.errors import AgentError
from agent.lab.netns import Namespace, pair, wait_until
from tests.attacks.clients import Attack
from tests.process import agent, any_certificate, basic

ROOT = Path(__file__).parent.parent.parent
MAX_RSS = 150 << 20
MAX_SECONDS = 1.0
ATTEMPTS = 3  # the quickest counts: the machine may have other work
ATTACKERS = tuple(f"192.0.2.{number}" for number in range(10, 40))
SCRAPER = "192.0.2.200"
_AGENT = "192.0.2.2"


def memory_limit() -> int:
    """Bytes, as the chart's values say."""
    values = yaml.safe_load((ROOT / "charts/bigtcp-agent/values.yaml").read_text())
    text = values["resources"]["limits"]["memory"]
    assert text.endswith("Mi")
    return int(text[:-2]) << 20


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[tuple[str, ...]]:
    """The beginning of a command line that puts the process into a memory cgroup.
    Where this machine lets us make none, it does nothing: RSS is asserted anyway.
    """
    root = Path("/sys/fs/cgroup")
    v2 = (root / "cgroup.controllers").exists()
    folder = (root if v2 else root / "memory") / f"bigtcp-attack-{os.getpid()}"
    try:
        if v2:
            (root / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
    except OSError:
        yield ()
        return
    try:
        name = "memory.max" if v2 else "memory.limit_in_bytes"
        (folder / name).write_text(str(limit))
        join = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
        yield ("sh", "-c", join, "sh")
    finally:

        def removed() -> bool:
            with contextlib.suppress(OSError):
                folder.rmdir()
            return not folder.exists()

        wait_until(removed, "the cgroup to be empty")


@dataclass(frozen=True)
class Answer:
    """Of the agent; status 0 where there was none."""

    status: int
    text: str
    seconds: float


@dataclass
class Asked:
    """Answers to one path while an attack went on."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        return max((answer.seconds for answer in self.answers), default=0)


@dataclass
class Victim:
    """A running agent."""

    process: subprocess.Popen[str]
    node: Namespace
    outside: Namespace
    port: int
    secure: bool
    login: str = ""
    context: ssl.SSLContext = field(default_factory=any_certificate)

    def get(self, path: str, source: str = SCRAPER, login: str | None = None) -> Answer:
        """From outside, with a connection of its own."""
        return self.outside.call(lambda: self._get(path, source, login))

    def _get(self, path: str, source: str, login: str | None = None) -> Answer:
        """For a thread that is in the namespace already."""
        begun = time.monotonic()
        connection = http.client.HTTPConnection(
            _AGENT, self.port, timeout=10, source_address=(source, 0)
        )
        if self.secure:
            connection = http.client.HTTPSConnection(
                *(_AGENT, self.port),
                timeout=10,
                source_address=(source, 0),
                context=self.context,
            )
        with contextlib.closing(connection):
            try:
                connection.request("GET", path, headers=basic(login or self.login))
                answer = connection.getresponse()
                status, text = answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException) as err:
                status, text = 0, repr(err)
        return Answer(status, text, time.monotonic() - begun)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self, name: str = "VmHWM") -> int:
        """Bytes of RSS, now (VmRSS) or at most since `forget_peak` (VmHWM)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
        raise AssertionError("the agent is dead")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @contextlib.contextmanager
    def attacked(self, *attacks: Attack) -> Iterator[None]:
        """Hostile HTTP clients, as processes outside, until they end or we do."""
        processes = [
            self.outside.start(
                *replace(attack, host=_AGENT, port=self.port, tls=self.secure).argv()
            )
            for attack in attacks
        ]
        try:
            yield
        finally:
            for process in processes:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def asked(self, *paths: str, pause: float = 0.05) -> Iterator[Mapping[str, Asked]]:
        """Ask for the paths again and again, each in a thread of its own."""
        asked = {path: Asked() for path in paths}
        over = threading.Event()

        def ask(path: str) -> None:
            while not over.wait(pause):
                asked[path].answers.append(self._get(path, SCRAPER))

        threads = [
            threading.Thread(
                target=self.outside.call, args=(lambda path=path: ask(path),)
            )
            for path in paths
        ]
        for thread in threads:
            thread.start()
        try:
            yield asked
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def under(
        self,
        attack: Callable[[], AbstractContextManager[object]],
        seconds: float = 3.0,
        *paths: str,
    ) -> None:
        """While the attack goes on for so long, every answer to /livez, /metrics and
        `paths` is right, and comes within a second; RSS stays below 150 MiB.
        """
        slowest = []
        for _ in range(ATTEMPTS):
            self.forget_peak()
            with self.asked("/livez", "/metrics", *paths) as asked, attack():
                time.sleep(seconds)  # that is how long it is attacked
            assert self.process.poll() is None, "the agent died"
            peak = self.memory()
            assert peak < MAX_RSS, f"{peak >> 20} MiB"
            for path, each in asked.items():
                assert each.answers, f"nobody asked for {path}"
                for answer in each.answers:
                    assert answer.status == 200, (path, answer)
            assert all(one.text == "ok\n" for one in asked["/livez"].answers)
            assert all(
                "bigtcp_build_info{" in one.text for one in asked["/metrics"].answers
            )
            slowest.append({path: each.slowest for path, each in asked.items()})
            if max(slowest[-1].values()) < MAX_SECONDS:
                return
        raise AssertionError(f"slowest answers, in seconds: {slowest}")


@contextlib.contextmanager
def attacked_agent(
    *flags: str,
    secure: bool = False,
    login: str = "",
    context: ssl.SSLContext | None = None,
    limit: int | None = None,
    wrapper: tuple[str, ...] = (),
) -> Iterator[Victim]:
    """A ready agent in a namespace of its own, with the chart's memory limit (bytes).
    `secure`: its flags make it speak TLS; `login`: the right one; `context`: how TLS
    is spoken to it, with any certificate where nothing is said; `wrapper`: in front of
    its command line.
    """
    with contextlib.ExitStack() as stack:
        stand = stack.enter_context(pair())
        for address in (*ATTACKERS, SCRAPER):
            stand.client.ip(f"addr add {address}/24 dev eth0")
        join = stack.enter_context(memory_cgroup(limit or memory_limit()))
        process, url = stack.enter_context(
            agent(*flags, within=stand.server, prefix=(*join, *wrapper), secure=secure)
        )
        port = int(url.rpartition(":")[2])
        victim = Victim(
            *(process, stand.server, stand.client, port, secure, login),
            context or any_certificate(),
        )
        _reached(victim)
        yield victim


def _reached(victim: Victim) -> None:
    """Duplicate address detection, ARP: the first packets take their time."""
    try:
        wait_until(lambda: victim.get("/livez").status == 200, "the way to the agent")
    except AgentError as err:
        raise AssertionError(err.message) from err
