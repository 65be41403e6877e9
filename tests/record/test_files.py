# SPDX-License-Identifier: Apache-2.0
"""Files appear whole, or not at all."""

import errno
import os
from collections.abc import Callable
from functools import partial
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


def test_a_link_where_it_is_written_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "a.json", tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".a.json.{os.getpid()}").symlink_to(victim)
    with whole(str(path)) as file:
        file.write("ours")
    assert victim.read_text() == "precious"
    assert path.read_text() == "ours"
    assert not path.is_symlink()


def test_everybody_may_read_it_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    before = os.umask(0o022)
    try:
        with whole(str(path)):
            pass
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_one_that_appears_at_the_last_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last look, and before it gets its name."""
    path = tmp_path / "a.json"

    def appear(to_do: Callable[..., None], *names: str) -> None:
        path.write_text("theirs")
        to_do(*names)

    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, partial(appear, getattr(os, name)))
    with pytest.raises(RecordError, match="exists already"), whole(str(path)) as file:
        file.write("ours")
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a.json"]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: str) -> None:
        raise PermissionError(errno.EPERM, "as on FAT")

    monkeypatch.setattr(os, "link", link)
    with whole(str(tmp_path / "a.json")) as file:
        file.write("ours")
    assert (tmp_path / "a.json").read_text() == "ours"
    assert os.listdir(tmp_path) == ["a.json"]


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
