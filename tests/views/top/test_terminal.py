# SPDX-License-Identifier: Apache-2.0
"""What `top` makes of a terminal, and of a shell's: taken, shared, slow, given back."""

import contextlib
import os
import re
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab.netns import wait_until
from tests.process import COMMAND
from tests.terminal import Terminal, restored, terminal
from tests.views.top.fakes import FakeAgent, Flow, picture, second_by_second


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with second_by_second() as at:
        yield at


@pytest.mark.parametrize(
    ("end", "code"),
    [
        *(("q", 0), ("\x03", 130), (signal.SIGTERM, 0)),
        *((signal.SIGHUP, 0), (signal.SIGINT, 130)),
    ],
)
def test_the_terminal_is_as_it_was(url: str, end: str | int, code: int) -> None:
    with terminal(COMMAND, "top", "--url", url) as screen:
        before = screen.attributes
        screen.wait_for("Linux 6.18.44")
        assert screen.attributes != before
        if isinstance(end, str):
            screen.type(end)
        else:
            screen.process.send_signal(end)
        assert screen.end() == code
        assert screen.attributes == before
        assert restored(screen)


@pytest.mark.parametrize(
    ("end", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)]
)
def test_the_terminal_is_given_back_at_once(url: str, end: int, code: int) -> None:
    """To who ends it as soon as it has taken it."""
    with terminal(COMMAND, "top", "--url", url) as screen:
        before = screen.attributes
        screen.wait_for("\x1b[?1049h")
        screen.process.send_signal(end)
        assert screen.end() == code
        assert screen.attributes == before
        assert restored(screen)
        assert "Traceback" not in screen.text


def is_stopped(pid: int) -> bool:
    """With all its threads: one might still read what is typed."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    try:
        return all(") T " in (task / "stat").read_text() for task in tasks)
    except FileNotFoundError:  # a thread has ended
        return False


def test_it_can_be_suspended(url: str) -> None:
    """Ctrl-Z gives the terminal back; in the foreground again, all is drawn anew."""
    with terminal(COMMAND, "top", "--url", url) as screen:
        before = screen.attributes
        screen.wait_for("Linux 6.18.44")
        for _ in range(2):
            screen.type("\x1a")
            wait_until(lambda: is_stopped(screen.process.pid), "it to be stopped")
            while screen.read(0):  # all that it wrote is there
                pass
            assert screen.attributes == before
            assert restored(screen)
            seen = len(screen.text)
            screen.process.send_signal(signal.SIGCONT)
            for text in ("\x1b[?1049h", "Linux 6.18.44", "uplink", "quit"):
                screen.wait_for(text, after=seen)
        screen.type("q")
        assert screen.end() == 0
        assert screen.attributes == before


@pytest.mark.parametrize("end", ["q", "\x03", signal.SIGTERM, signal.SIGHUP])
def test_it_goes_on_though_nothing_was_suspended(url: str, end: str | int) -> None:
    """After a SIGSTOP the shell may have used the terminal; a SIGCONT may come alone,
    and again with the end.
    """
    with terminal(COMMAND, "top", "--url", url) as screen:
        before = screen.attributes
        screen.wait_for("Linux 6.18.44")
        ours = screen.attributes
        screen.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(screen.process.pid), "it to be stopped")
        screen.attributes = before
        for _ in range(2):
            seen = len(screen.text)
            screen.process.send_signal(signal.SIGCONT)
            screen.wait_for("\x1b[?1049h", after=seen)
            begun = screen.text.index("\x1b[?1049h", seen)
            for text in ("Linux 6.18.44", "uplink", "quit"):
                screen.wait_for(text, after=begun)
            wait_until(lambda: screen.attributes == ours, "its settings")
        if isinstance(end, str):
            screen.type(end)
        else:
            screen.process.send_signal(end)
            screen.process.send_signal(signal.SIGCONT)
        assert screen.end() == (130 if end == "\x03" else 0)
        assert screen.attributes == before
        assert restored(screen)
        assert "Traceback" not in screen.text


@contextlib.contextmanager
def in_a_shell(url: str, *, foreground: bool = True) -> Iterator[tuple[Terminal, int]]:
    """`top` as the job of one that has this terminal for itself; its process."""
    shell = ("setsid", "--ctty", "--wait", "bash", "--norc", "--noediting", "-i")
    with terminal(*shell, env={"PS1": "ready> "}) as screen:
        screen.wait_for("ready> ")
        job = f"sh -c 'echo job $$; exec {COMMAND} top --url {url}'"
        if foreground:
            screen.type(f"{job}\n")
            screen.wait_for("Linux 6.18.44")
        else:
            told_by_the_shell(screen, f"{job} &")

        def its_process() -> int:
            screen.read(0)
            found = re.search(r"job (\d+)\r$", screen.text, re.MULTILINE)
            return int(found[1]) if found else 0

        yield screen, wait_until(its_process, "its process")


def told_by_the_shell(screen: Terminal, command: str) -> str:
    seen = len(screen.text)
    screen.type(f"{command}\n")
    screen.wait_for("ready> ", after=seen)
    return screen.text[seen:]


def goes_on_and_ends(screen: Terminal, pid: int) -> None:
    """In the foreground again, which is for what the shell knows to be stopped."""
    wait_until(lambda: "Stopped" in told_by_the_shell(screen, "jobs"), "the shell")
    seen = len(screen.text)
    screen.type("fg\n")
    for text in ("\x1b[?1049h", "Linux 6.18.44", "quit"):
        screen.wait_for(text, after=seen)
    seen = len(screen.text)
    screen.type("q")
    screen.wait_for("ready> ", after=seen)
    assert not Path(f"/proc/{pid}").exists()
    assert restored(screen)


def test_in_the_background_it_leaves_the_terminal_alone(url: str) -> None:
    """Whatever the shell has made of it meanwhile."""
    with in_a_shell(url) as (screen, pid):
        seen = len(screen.text)
        os.kill(pid, signal.SIGSTOP)
        screen.wait_for("ready> ", after=seen)
        others = screen.attributes
        others[3] &= ~termios.ECHO
        screen.attributes = others
        seen = len(screen.text)
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: is_stopped(pid), "it to be stopped again")
        while screen.read(0):  # all that it wrote is there
            pass
        assert screen.attributes == others
        assert "\x1b[?1049" not in screen.text[seen:]
        goes_on_and_ends(screen, pid)


def test_it_begins_in_the_background(url: str) -> None:
    """Without the terminal, and takes it when it gets it."""
    with in_a_shell(url, foreground=False) as (screen, pid):
        wait_until(lambda: is_stopped(pid), "it to be stopped")
        while screen.read(0):  # all that it wrote is there
            pass
        assert "\x1b[?1049" not in screen.text
        goes_on_and_ends(screen, pid)


def test_a_shell_ends_what_it_has_suspended(url: str) -> None:
    """By SIGTERM, and SIGCONT."""
    with in_a_shell(url) as (screen, pid):
        seen = len(screen.text)
        screen.type("\x1a")
        screen.wait_for("ready> ", after=seen)
        assert is_stopped(pid)
        before = screen.attributes
        screen.type("kill %1\n")
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "its end")
        assert screen.attributes == before
        assert restored(screen)


# That may wait on it: 20,000 are the kernel's, and there are two frames of as many.
# Textual's own driver lets 300,000 and more wait.
SLOW_LINE_CHARACTERS = 80_000


@pytest.mark.parametrize("end", ["q", "\x03", signal.SIGTERM])
def test_a_slow_line(end: str | int) -> None:
    """It takes a sixth of what there is to draw: frames are left out, none is old."""
    rows = [Flow(f"lxc{n:03}", ifindex=n, small=n) for n in range(1, 301)]
    began = time.time() - 1

    def answer() -> dict[str, object]:
        for row in rows:
            row.small = (row.small * 7 + 1) % 9999
        return picture(time.time() - began, rows, started=began)

    agent = FakeAgent(answer)
    argv = (COMMAND, "top", "--url", agent.url, "--interval", "0.2")
    size = {"columns": 200, "lines": 60}
    with (
        agent.serving(),
        terminal(*argv, **size, env={"TZ": "UTC"}) as screen,
    ):
        before = screen.attributes
        screen.read_slowly(60, 16_000, until="Linux")
        screen.read_slowly(8 if end == "q" else 3, 16_000)
        seen, now = len(screen.text), int(time.time())

        def newer() -> bool:
            screen.read_slowly(0.1, 16_000)
            clock = re.findall(r"(\d\d):(\d\d):(\d\d)", screen.text)[-1]
            hours, minutes, seconds = map(int, clock)
            after = (3600 * hours + 60 * minutes + seconds - now) % 86400
            return 0 < after < 43200

        wait_until(newer, "what is drawn now")
        # Of a clock that may just have ticked, a second more.
        assert len(screen.text) - seen < SLOW_LINE_CHARACTERS + 16_000
        if isinstance(end, str):
            screen.type(end)
        else:
            screen.process.send_signal(end)
        came = screen.read_slowly(60, 16_000, until="\x1b[?1049l")
        assert came < SLOW_LINE_CHARACTERS
        assert screen.end() == (130 if end == "\x03" else 0)
        assert screen.attributes == before
        assert restored(screen)


def test_a_terminal_without_colour(url: str) -> None:
    flags = ("--url", url, "--interval", "0.1")
    with terminal(COMMAND, "top", *flags, env={"NO_COLOR": "1"}) as screen:
        screen.wait_for("█")
        screen.type("F")
        screen.wait_for("C09 critical")
        screen.type("q")
        assert screen.end() == 0
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", screen.text))
    used = {code for each in codes for code in each.split(";")}
    assert used <= {"", "0", "1", "2", "4", "7", "39", "49"}


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}])
def test_a_dumb_terminal(url: str, env: dict[str, str]) -> None:
    flags = ("--url", url, "--interval", "0.1")
    with terminal(COMMAND, "top", *flags, env=env) as screen:
        screen.wait_for("as seen by")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 130
    assert "\x1b" not in screen.text
