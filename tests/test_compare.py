# SPDX-License-Identifier: Apache-2.0
"""`compare` as a user starts it: two records, a page, and codes for pipelines."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from agent.record.lines import Writer
from tests.process import COMMAND
from tests.record.fakes import record
from tests.snapshot.fakes import OURS, lengths
from tests.snapshot.test_sample import World


def run(*argv: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [COMMAND, "compare", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def off(tmp_path: Path) -> str:
    path = tmp_path / "off.json"
    path.write_text(record("off", [100.0, 101.0, 102.0], 0).json())
    return str(path)


@pytest.fixture
def on(tmp_path: Path) -> str:
    """29.7 % faster."""
    path = tmp_path / "on.json"
    path.write_text(record("on", [131.0, 130.0, 132.0], 50).json())
    return str(path)


def test_table_and_json(off: str, on: str) -> None:
    code, told, said = run(off, on)
    assert (code, said) == (0, "")
    assert "+29.7 %" in told
    code, told, said = run(off, on, "-o", "json")
    assert (code, said) == (0, "")
    assert json.loads(told)["families"]["ipv4"][0]["verdict"] == "better"
    assert run(off, on, "-o", "json")[1] == told


@pytest.mark.parametrize(
    ("order", "least", "code"),
    [
        (("off", "on"), "29", 0),
        (("off", "on"), "30", 5),
        (("off", "off"), "0", 0),
        (("off", "off"), "0.1", 5),
        (("on", "off"), "0", 5),
        (("on", "off"), "-22", 5),
        (("on", "off"), "-23", 0),
    ],
)
def test_codes_for_pipelines(
    order: tuple[str, str], least: str, code: int, off: str, on: str
) -> None:
    paths = {"off": off, "on": on}
    found, told, said = run(*(paths[name] for name in order), "--fail-below", least)
    assert found == code
    assert "transactions/s" in told
    assert ("ipv4: " in said) is (code == 5)


def test_a_page(off: str, on: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for _ in range(2):  # the second time over the first
        code, told, said = run(off, on, "--html", str(path))
        assert (code, said) == (0, "")
        assert "+29.7 %" in told
        assert path.read_text().endswith("</html>\n")
    assert sorted(os.listdir(tmp_path)) == ["off.json", "on.json", "page.html"]


def test_a_page_of_next_to_nothing(tmp_path: Path) -> None:
    path, page = tmp_path / "a.json", tmp_path / "page.html"
    path.write_text(record("a", [5e-324] * 3, 0).json())
    code, _, said = run(str(path), str(path), "--html", str(page))
    assert (code, said) == (0, "")
    assert "<svg" in page.read_text()


def test_records_of_top(tmp_path: Path, off: str) -> None:
    paths = []
    for name, big in (("a", 0), ("b", 5)):
        world, path = World(), tmp_path / f"{name}.jsonl"
        with Writer(str(path)) as recorded:
            for number in range(5):
                world.now += 1
                world.probes.put(OURS, 2, lengths(10 * number, big * number))
                recorded.add(world.sample().picture)
        paths.append(str(path))
    code, told, said = run(*paths, "--fail-below", "100")
    assert (code, said) == (0, "")
    assert "10,000  510,000    +5,000 %" in told
    code, _, said = run(paths[0], off)
    assert code == 2
    assert "is a record of top" in said


def test_a_family_that_was_silent_fails_no_pipeline(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        world, path = World(), tmp_path / f"{name}.jsonl"
        with Writer(str(path)) as recorded:
            for number in range(5):
                world.now += 1
                world.probes.put(OURS, 2, lengths(10 * number))
                picture = world.sample().picture
                rows = picture["counters"]
                stray = rows[0] | {"ip_family": "ipv6", "bytes": number // 4 * 80}
                stray |= {"slots": [number // 4, 0, 0, 0]}
                recorded.add({**picture, "counters": [*rows, stray]})
        paths.append(str(path))
    code, told, said = run(*paths, "--fail-below", "0")
    assert (code, said) == (0, "")
    assert "ipv6" in told


def test_bad_input(off: str, tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.json", tmp_path / "other.json"
    broken.write_text("{")
    other.write_text(record("o", [1.0], 0).json().replace("80000", "1000"))
    for argv, code, why in (
        ((off, "/none"), 1, "/none cannot be read: no such file or directory"),
        ((off, str(broken)), 1, f"{broken}, line 1, column 2: this is no JSON"),
        ((off, str(other)), 2, "TCP_RR 80000:80000, "),
        ((off, off, "--html", "/dev/null"), 1, "is there and no file"),
        ((off, off, "--html", "/none/a.html"), 1, "cannot be written"),
        ((off, off, "--fail-below", "nan"), 2, "nan is no percentage"),
        ((off, off, "--fail-below", "5%"), 2, "not a valid float"),
        ((off,), 2, "Missing argument 'B'"),
    ):
        found, told, said = run(*argv)
        assert (found, told) == (code, ""), argv
        error, hint = said.splitlines()
        assert error.startswith("error: ")
        assert why in error
        assert hint.startswith("hint: ")


def test_names_that_are_no_text(off: str, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.json"
    os.rename(off, path)
    done = subprocess.run(
        [COMMAND, "compare", path, path], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [COMMAND, "compare", path, b"\xff"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_a_stdout_without_our_letters(on: str, tmp_path: Path) -> None:
    path = tmp_path / "bar.json"
    path.write_text(record("█", [1.0, 2.0, 3.0], 0).json())
    done = subprocess.run(
        [COMMAND, "compare", str(path), on],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"A  ? (")


def test_nothing_left_to_compare_by_per_cent(tmp_path: Path, on: str) -> None:
    path = tmp_path / "zero.json"
    path.write_text(record("zero", [0.0, 0.0, 0.0], 0).json())
    assert run(str(path), on)[0] == 0
    code, _, said = run(str(path), on, "--fail-below", "1")
    assert code == 1
    assert "there is no per cent of it" in said


def test_a_family_that_b_has_lost_fails_a_pipeline(tmp_path: Path, on: str) -> None:
    value = json.loads(Path(on).read_text())
    value["families"]["ipv6"] = value["families"]["ipv4"]
    both = tmp_path / "both.json"
    both.write_text(json.dumps(value))
    code, _, said = run(str(both), on, "--fail-below", "0")
    assert code == 5
    assert "ipv6: -100.0 % is below +0 %" in said


def test_a_page_does_not_replace_a_record(off: str, on: str) -> None:
    before = Path(off).read_bytes()
    code, _, said = run(off, on, "--html", off)
    assert (code, Path(off).read_bytes()) == (1, before)
    assert said.startswith(f"error: {off} exists already")


def test_a_fifo_is_no_record(on: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    code, _, said = run(str(tmp_path / "fifo"), on)
    assert code == 1
    assert "it is not a regular file" in said
