# SPDX-License-Identifier: Apache-2.0
"""`top` as a user starts it: in a pipe, with bad input, with and without an agent."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.inquiry import LOCAL_AGENT
from agent.kernel.links import Rtnetlink
from agent.lab.demo import BIG
from agent.lab.netns import Stand, chain, pair, wait_until
from agent.lab.netperf import MESSAGE_BYTES, PORT, serve
from agent.record.lines import Writer
from agent.views.cells import si
from tests.process import COMMAND, agent, nobody
from tests.terminal import restored, terminal
from tests.views.top.fakes import (
    BEGAN,
    FakeAgent,
    flows,
    picture,
    second_by_second,
)


def top(
    *argv: str, prefix: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Code, stdout and stderr. `env` is added to ours."""
    done = subprocess.run(
        [*prefix, COMMAND, "top", *argv],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (env or {}),
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with second_by_second() as at:
        yield at


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    with Writer(str(path)) as writer:
        for second in range(1, 6):
            writer.add(picture(second, flows()))
    return path


def test_once(url: str) -> None:
    code, told, said = top("--url", url, "--once", "--interval", "0.1")
    assert (code, said) == (0, "")
    assert "node1, Linux 6.18.44, Cilium 1.20.2" in told
    assert f"as seen by the agent at {url}" in told
    eth0 = next(line for line in told.splitlines() if line.startswith("eth0 "))
    assert eth0.split() == [
        *("eth0", "tx", "v4", "192K", "21.0k", "969M", "99%", "80,000", "32.4"),
    ]
    assert "dummy0" not in told


def test_json(url: str) -> None:
    code, told, said = top("--url", url, "--once", "-o", "json", "--interval", "0.1")
    assert (code, said) == (0, "")
    document = json.loads(told)
    assert document["schema"] == "bigtcp.top/v1"
    assert document["source"] == f"the agent at {url}"
    assert document["seconds"] == 1
    assert document["findings"] == ["C09"]
    assert document["families"]["ipv4"]["state"] == "segmented"
    rows = {
        (row["name"], row["hook"], row["ip_family"]): row for row in document["rows"]
    }
    assert len(rows) == len(document["rows"]) == 11  # others one by one
    row = rows["shop/web-6f7c9d4b8-x2x7p", "net_dev_start_xmit", "ipv4"]
    assert row["pod"] == row["name"]
    assert row["bytes_per_second"] == 5_000 * 80_000
    assert (row["skbs_per_second"], row["big_share"]) == (5_000, 1)
    assert sum(row["slots"]) == 5_000
    assert rows["dummy0", "net_dev_start_xmit", "ipv4"]["big_share"] is None


def test_ndjson_and_count(url: str) -> None:
    code, told, said = top(
        *("--url", url, "--count", "3", "-o", "ndjson", "--interval", "0.1")
    )
    assert (code, said) == (0, "")
    rows = [json.loads(line) for line in told.splitlines()]
    assert len(rows) == 33
    assert {row["schema"] for row in rows} == {"bigtcp.top/v1"}
    assert len({row["time"] for row in rows}) == 3


def test_a_reader_that_has_seen_enough(url: str) -> None:
    command = f"{COMMAND} top --url {url} -o json --interval 0.1 | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False
    )
    assert json.loads(done.stdout)["schema"] == "bigtcp.top/v1"
    assert (done.returncode, done.stderr) == (1, b"")


def test_without_a_terminal_it_goes_on_as_text(url: str) -> None:
    with subprocess.Popen(
        [COMMAND, "top", "--url", url, "--interval", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        heads = 0
        while heads < 3:
            heads += process.stdout.readline().startswith("node1, Linux")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "")


def test_replay_in_a_pipe(record: Path) -> None:
    code, told, _ = top("--replay", str(record), "-o", "json")
    documents = [json.loads(line) for line in told.splitlines()]
    assert code == 0
    assert [each["time"] - BEGAN for each in documents] == [2, 3, 4, 5]
    code, told, _ = top("--replay", str(record), "--once", "-o", "json")
    whole = json.loads(told)
    assert (code, whole["seconds"]) == (0, 4)
    code, told, _ = top("--replay", str(record), "--count", "2")
    told = " ".join(told.split())  # a long path has a line of its own
    assert (code, told.count(f"as seen by {record}")) == (0, 2)


def test_replay_across_a_restart(tmp_path: Path) -> None:
    """As one interval, the time without an agent is left out, and no rate is absurd."""
    path = tmp_path / "a.jsonl"
    with Writer(str(path)) as writer:
        for second in range(1, 4):
            writer.add(picture(second, flows()))
        for second in range(7, 10):  # its counters are 7 s older than it is
            age = second - 7
            writer.add(picture(second, flows(), started=BEGAN + 60, uptime=age))
    code, told, _ = top("--replay", str(path), "--once", "-o", "json")
    whole = json.loads(told)
    assert (code, whole["seconds"]) == (0, 4)
    code, told, _ = top("--replay", str(path), "-o", "json")
    documents = [json.loads(line) for line in told.splitlines()]
    assert [each["time"] - BEGAN for each in documents] == [2, 3, 68, 69]
    for document in (whole, *documents):
        by_device = {row["device"]: row for row in document["rows"]}
        assert by_device["eth2"]["bytes_per_second"] == 20 * 80_000
    other = tmp_path / "b.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    other.write_text("".join(lines[i] for i in (0, 1, 4)))
    for flags in ((), ("--once",)):
        code, told, said = top("--replay", str(other), *flags)
        assert (code, told) == (1, "")
        assert "has no interval: that takes two samples of one agent" in said


def test_without_a_terminal_it_outlives_the_agent(tmp_path: Path) -> None:
    """It says so once, asks until one is back, and records what that says."""
    began = time.time() - 100

    def answer() -> dict[str, object]:
        # As an agent with a backlog: it counts for longer than it is old.
        age = time.time() - began
        return picture(age + 7, flows(), started=began, uptime=age)

    agent, path = FakeAgent(answer), tmp_path / "a.jsonl"
    flags = ("--url", agent.url, "--interval", "0.1", "-o", "ndjson")
    with contextlib.ExitStack() as stack:
        serving = stack.enter_context(contextlib.ExitStack())
        serving.enter_context(agent.serving())
        process = stack.enter_context(
            subprocess.Popen(
                [COMMAND, "top", *flags, "--record", str(path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        assert process.stdout
        assert process.stderr
        rows = [json.loads(process.stdout.readline()) for _ in range(22)]
        serving.close()
        warning = process.stderr.readline()
        assert warning.startswith(f"warning: the agent at {agent.url} answers no more")
        assert warning.endswith("; trying again\n")
        began = time.time()
        stack.enter_context(agent.serving())
        while rows[-1]["time"] < began:
            rows.append(json.loads(process.stdout.readline()))
        rows += [json.loads(process.stdout.readline()) for _ in range(22)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "")
    rates = [row["bytes_per_second"] for row in rows if row["device"] == "uplink"]
    assert max(rates) < 1.1 * 700_000 * 1000
    assert len(path.read_text().splitlines()) > 4


@pytest.mark.parametrize("flags", [("--once",), ("--count", "3")])
def test_so_many_intervals_are_not_waited_for(flags: tuple[str, ...]) -> None:
    """An agent that dies in between ends a script."""
    answers = iter([picture(1, flows()), picture(2, flows())])
    agent = FakeAgent(lambda: next(answers, {}))
    with agent.serving():
        code, told, said = top("--url", agent.url, "--interval", "0.1", *flags)
    assert (code, told) == (1, "")
    assert "speaks another schema" in said


def test_record_and_replay(url: str, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    flags = ("--url", url, "--interval", "0.1", "--record", str(path))
    assert top(*flags, "--count", "3")[0] == 0
    assert len(path.read_text().splitlines()) == 5
    assert top("--replay", str(path), "-o", "ndjson")[1].count("\n") == 33
    code, told, said = top(*flags, "--once")
    assert (code, told) == (1, "")
    assert said.startswith(f"error: {path} exists already\nhint: ")


def test_a_record_that_finds_no_room(url: str, tmp_path: Path) -> None:
    """Watching goes on, and fails at the end."""
    path = tmp_path / "c.jsonl"
    code, told, said = top(
        *("--url", url, "--interval", "0.1", "--count", "4", "--record", str(path)),
        prefix=("prlimit", "--fsize=14000"),
    )
    assert (code, told.count("node1, Linux")) == (1, 4)
    why = "recording stopped: file too large"
    warning, error, _ = said.splitlines()
    assert warning == f"warning: {why}"
    assert error == f"error: {path} has not all samples: {why}"
    assert top("--replay", str(path), "-o", "json")[0] == 0


@pytest.mark.parametrize(
    ("flags", "code", "why"),
    [
        (("--url", "x"), 2, "--url 'x' is no address of an agent"),
        (("--interval", "nan"), 2, "nan is no time"),
        (("--interval", "0"), 2, "0.0 is not in the range"),
        (("--once", "--count", "2"), 2, "--once and --count cannot be combined"),
        (("--replay", "a", "--record", "b"), 2, "--replay and --record cannot"),
        (("--replay", "a", "--url", "http://b"), 2, "--replay and --url cannot"),
        (("--replay", "/nonexistent"), 1, "/nonexistent cannot be read: no such file"),
        (("--replay", "/proc/self/exe"), 1, "this is no record"),
    ],
)
def test_bad_input(flags: tuple[str, ...], code: int, why: str) -> None:
    found, told, said = top(*flags)
    assert (found, told) == (code, "")
    assert said.startswith("error: ")
    assert why in said
    assert len(said.splitlines()) == 2


def test_the_agents_own_environment_is_no_mistake(record: Path) -> None:
    env = {"BIGTCP_URL": "http://127.0.0.1:9"}
    code, told, said = top("--replay", str(record), "--once", env=env)
    assert (code, said) == (0, "")
    assert str(record) in told


def test_nobody_there() -> None:
    url = nobody()
    code, told, said = top("--url", url)
    assert (code, told) == (4, "")
    assert said.startswith(f"error: no agent answers at {url} (connection refused)\n")


def test_one_sample_is_no_time(record: Path) -> None:
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:2]))
    code, told, said = top("--replay", str(record), "--once")
    assert (code, told) == (1, "")
    assert "has no interval: that takes two samples" in said


# On a terminal.


def test_a_corrupt_line_on_a_screen(record: Path) -> None:
    lines = record.read_text().splitlines(keepends=True)
    lines[3] = "{\n"
    record.write_text("".join(lines))
    with terminal(COMMAND, "top", "--replay", str(record)) as screen:
        before = screen.attributes
        assert screen.end() == 1
        assert screen.attributes == before
        assert restored(screen)
    said = screen.text[screen.text.rindex("\x1b[?1049l") :]
    assert f"error: {record}, line 4: this is no JSON" in said


def test_without_agent_and_rights() -> None:
    argv = ("setpriv", "--bounding-set=-all", "--no-new-privs", COMMAND, "top")
    with terminal(*argv, columns=300) as screen:
        assert screen.end() == 4
    assert "\x1b" not in screen.text
    assert screen.text.startswith(f"error: no agent answers at {LOCAL_AGENT} (")
    assert "we cannot look ourselves" in screen.text


@pytest.fixture(scope="module")
def busy() -> Iterator[Stand]:
    """Two namespaces between which big packets pass, and no agent."""
    with pair() as stand:
        stand.set_sizes(BIG)
        serve(stand.server, 0)
        address, size = stand.addresses["ipv4"], str(MESSAGE_BYTES)
        stand.client.start(
            *("netperf", "-4", "-H", address, "-p", str(PORT), "-l", "600"),
            *("-t", "TCP_RR", "--", "-r", f"{size}:{size}"),
        )
        with contextlib.closing(stand.client.call(Rtnetlink)) as rtnetlink:

            def passes() -> bool:
                (eth0,) = (link for link in rtnetlink.links() if link.name == "eth0")
                return eth0.counters.tx_bytes > 10 * MESSAGE_BYTES

            wait_until(passes, "packets to pass")
        yield stand


def test_without_an_agent_it_counts_itself(busy: Stand) -> None:
    argv = ("top", "--once", "-o", "json", "--interval", "0.5")

    def counted() -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """A document, and what passed eth0; None where netperf had no CPU."""
        document = json.loads(busy.client.run(COMMAND, *argv))
        rows = [
            row
            for row in document["rows"]
            if (row["device"], row["scope"]) == ("eth0", "node")
            and row["ip_family"] == "ipv4"
            and row["hook"] in ("net_dev_start_xmit", "netif_receive_skb")
            and sum(row["slots"]) > 10
        ]
        return (document, rows) if len(rows) == 2 else None

    found = wait_until(counted, "packets to pass in both directions")
    assert found
    document, rows = found
    assert document["source"] == "our own probes"
    assert document["seconds"] > 0.4
    for row in rows:
        skbs = row["skbs_per_second"] * document["seconds"]
        assert skbs == pytest.approx(sum(row["slots"]))
        assert row["big_share"] > 0.9
        assert row["longest"] == MESSAGE_BYTES + 52
    assert "as seen by our own probes" in busy.client.run(COMMAND, "top", "--once")


def test_without_an_agent_there_is_a_screen(busy: Stand) -> None:
    argv = busy.client.command(COMMAND, "top", "--interval", "0.2")
    with terminal(*argv) as screen:
        before = screen.attributes
        screen.wait_for("as seen by our own probes")
        screen.wait_for("80,052")
        screen.type("\r")
        screen.wait_for("above: only with BIG TCP")
        screen.type("q")
        assert screen.end() == 0
        assert screen.attributes == before


def shown(text: str) -> list[str]:
    """Bytes a second that passed eth0, as a screen has shown them again and again."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return re.findall(r"eth0 +[tr]x +v4 +\S+ +\S+ +([\d.]+[kMG]?) ", plain)


def recorded(path: Path) -> list[set[str]]:
    """The same from picture to picture of a record, for each agent that was asked."""
    agents: dict[float, list[tuple[float, dict[tuple[str, str], int]]]] = {}
    for line in path.read_text().splitlines()[1:]:
        picture = json.loads(line)
        counted = {
            (row["hook"], row["ip_family"]): row["bytes"]
            for row in picture["counters"]
            if (row["device"], row["scope"]) == ("eth0", "node")
        }
        its = agents.setdefault(picture["started"], [])
        its.append((picture["uptime"], counted))
    return [
        {
            si((count - before.get(key, 0)) / (end - begun))
            for (begun, before), (end, now) in pairwise(pictures)
            if end > begun
            for key, count in now.items()
        }
        for pictures in agents.values()
    ]


def test_an_agent_is_killed_and_started_again_while_we_watch(tmp_path: Path) -> None:
    """Real traffic through a real agent, which dies: STALE, then new rates, each of
    them between two pictures of one agent.
    """
    path = tmp_path / "a.jsonl"
    with chain() as stand:
        stand.set_sizes(BIG)
        serve(stand.server, 0)
        address = stand.addresses["ipv4"]
        size = str(MESSAGE_BYTES)
        load = stand.client.start(
            *("taskset", "-c", "0"),  # as the server
            *("netperf", "-4", "-H", address, "-p", str(PORT), "-l", "600"),
            *("-t", "TCP_RR", "--", "-r", f"{size}:{size}"),
        )
        with agent(within=stand.server) as (process, url):
            argv = stand.server.command(COMMAND, "top", "--url", url)
            flags = ("--interval", "0.2", "--record", str(path))
            with terminal(*argv, *flags, columns=120, lines=40) as screen:
                screen.wait_for("80,052")
                wait_until(
                    lambda: screen.read(1) and len(shown(screen.text)) >= 10,
                    "rates",
                )
                screen.type("/eth0\r")  # all at once, as over a slow line
                screen.wait_for("only /eth0")
                screen.type("\r")
                screen.wait_for("above: only with BIG TCP")
                screen.wait_for("80 KiB")
                process.kill()
                screen.wait_for("STALE")
                screen.wait_for("answers no more")
                screen.type("\x1b")
                port = url.rpartition(":")[2]
                again = stand.server.start(COMMAND, "run", "--listen", f":{port}")
                seen = len(screen.text)
                # Only where there is no problem stands who answers.
                screen.wait_for("as seen by", after=seen)
                wait_until(
                    lambda: screen.read(1) and len(shown(screen.text[seen:])) >= 20,
                    "new rates",
                )
                assert load.poll() is None
                screen.type("q")
                assert screen.end() == 0
                again.kill()
    old, new = recorded(path)
    rates = set(shown(screen.text))
    assert rates <= old | new
    assert rates & new
