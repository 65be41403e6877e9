# SPDX-License-Identifier: Apache-2.0
"""Files appear whole, or not at all."""

import os
from pathlib import Path

import pytest

from agent.record.files import in_folder, whole
from agent.record.lines import RecordError


def test_it_appears_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with whole(str(path)) as file:
        file.write("half, ")
        file.flush()
        assert not path.exists()
        file.write("whole")
    assert path.read_text() == "half, whole"
    assert os.listdir(tmp_path) == ["a.json"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail() -> None:
        with whole(str(path), over=b"before") as file:
            file.write("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.json"]


def test_only_who_asks_writes_over(tmp_path: Path) -> None:
    path, link = tmp_path / "a.json", tmp_path / "link"
    path.write_text("before")
    link.symlink_to(path)
    with pytest.raises(RecordError, match="exists already"), whole(str(path)):
        pytest.fail("it was opened")
    with whole(str(link), over=b"before") as file:
        file.write("after")
    assert path.read_text() == "after"
    assert link.is_symlink()
    with (
        pytest.raises(RecordError, match="exists already"),
        whole(str(path), over=b"before"),
    ):
        pytest.fail("it begins with something else")


def test_one_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with (
        pytest.raises(RecordError, match="exists already"),
        whole(str(path)),
    ):
        path.write_text("theirs")
    assert path.read_text() == "theirs"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/dev/null", "is there and no file"),
        ("/dev", "is there and no file"),
        ("/nonexistent/a.json", "cannot be written: no such file"),
        ("/proc/a.json", "cannot be written"),
    ],
)
def test_where_it_cannot_be_written(path: str, why: str) -> None:
    with pytest.raises(RecordError, match=why), whole(path, over=b"before"):
        pytest.fail("it was opened")


def test_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with in_folder(str(folder), ["off", "on"]) as files:
        for name, file in files.items():
            file.write(name)
    assert (folder / "on.json").read_text() == "on"
    with (
        pytest.raises(RecordError, match=r"off\.json exists already"),
        in_folder(str(folder), ["new", "off"]),
    ):
        pytest.fail("it was opened")
    assert sorted(os.listdir(folder)) == ["off.json", "on.json"]
    with (
        pytest.raises(RecordError, match="cannot be made"),
        in_folder(str(folder / "on.json"), ["a"]),
    ):
        pytest.fail("it was opened")
