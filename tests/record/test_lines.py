# SPDX-License-Identifier: Apache-2.0
"""Records of `top`: what was written is read; what is corrupt says where."""

import errno
import io
from pathlib import Path

import pytest

from agent.record.lines import RecordError, Recording, Writer
from tests.snapshot.fakes import OURS, lengths
from tests.snapshot.test_sample import World


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record of three samples: 1, 2 and 3 skbs."""
    path, world = tmp_path / "a.jsonl", World()
    with Writer(str(path)) as record:
        for count in (1, 2, 3):
            world.now += 1
            world.probes.put(OURS, 2, lengths(count))
            record.add(world.sample().picture)
    return path


def counts(path: Path) -> list[int]:
    with Recording(str(path)) as record:
        samples = [record.sample(number) for number in range(len(record))]
    return [
        line.lengths.histogram.count
        for sample in samples
        for line in sample.lines.values()
    ]


def test_what_was_written_is_read(path: Path) -> None:
    assert counts(path) == [1, 2, 3]


def test_a_writer_that_was_killed(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])
    assert counts(path) == [1, 2]


def test_a_record_that_is_closed_takes_no_more(tmp_path: Path) -> None:
    """An agent may answer after the end."""
    path = tmp_path / "closed.jsonl"
    with Writer(str(path)) as record:
        pass
    before = path.read_text()
    record.add({})
    assert path.read_text() == before


class FullAtTheEnd(io.StringIO):
    """A file that takes all, and is refused when it is closed, as NFS may do it."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_a_disk_that_is_full_only_at_the_end(tmp_path: Path) -> None:
    """Another error on the way out is not hidden by it."""

    def write(name: str, error: type[Exception] | None) -> None:
        with Writer(str(tmp_path / name)) as record:
            record._file.close()
            record._file = FullAtTheEnd()
            if error:
                raise error

    with pytest.raises(RecordError, match="a cannot be written: disk quota exceeded"):
        write("a", None)
    with pytest.raises(ZeroDivisionError):
        write("b", ZeroDivisionError)


def test_nothing_is_written_over(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(RecordError, match="exists already"):
        Writer(str(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("bigtcp.record/v1", "bigtcp.record/v2", r"line 1: its format is .*/v2"),
        ('"kind":"top"', '"kind":"x"', "line 1: this is no record"),
        ("bigtcp.record/v1", "x", "line 1: this is no record"),
        (
            '"taken":1000000002',
            '"taken":"x","was":2',
            "line 3: taken: expected `float`, got `str`",
        ),
        ('"taken":1000000003', '"taken":', "line 4: this is no JSON"),
    ],
)
def test_what_is_corrupt(path: Path, old: str, new: str, why: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RecordError, match=why):
        counts(path)


@pytest.mark.parametrize(
    ("schema", "newer"),
    [("bigtcp.record/v0", False), ("bigtcp.record/v11", True), ("x/v2", False)],
)
def test_a_record_of_another_version(path: Path, schema: str, newer: bool) -> None:
    path.write_text(path.read_text().replace("bigtcp.record/v1", schema))
    with pytest.raises(RecordError, match="line 1: ") as caught:
        Recording(str(path))
    assert ("newer" in caught.value.hint) is newer


def test_lines_are_counted_as_an_editor_counts_them(path: Path) -> None:
    """Those that are blank, too."""
    header, first, *others = path.read_text().splitlines()
    path.write_text("\n".join([header, "", first, " ", *others[:-1], "{", ""]))
    with pytest.raises(RecordError, match="line 6: this is no JSON"):
        counts(path)


def test_the_whole_leaves_out_restarts(path: Path, tmp_path: Path) -> None:
    """What the agent had counted when it was first asked, nobody knows since when."""
    other, world = tmp_path / "b.jsonl", World()
    with Writer(str(other)) as record:
        for seconds, skbs in ((1, 1), (2, 4), (0, 50), (1, 57), (0, 9), (5, 11)):
            if not seconds:
                world.start()
            world.now += seconds or 100
            world.probes.put(OURS, 2, lengths(skbs))
            record.add(world.sample().picture)
    with Recording(str(other)) as recording:
        period = recording.whole()
    (line,) = period.lines.values()
    assert period.seconds == 2 + 1 + 5
    assert line.lengths.histogram.count == 3 + 7 + 2
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with (
        Recording(str(path)) as recording,
        pytest.raises(RecordError, match="has no interval"),
    ):
        recording.whole()


def test_what_is_no_record(path: Path, tmp_path: Path) -> None:
    path.write_text(path.read_text().splitlines()[0] + "\n")
    for name, why in (
        (path, "holds no sample"),
        (tmp_path, "is a directory"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path / "none", "no such file"),
        (Path("/proc/self/exe"), "this is no record"),
    ):
        with pytest.raises(RecordError, match=why):
            Recording(str(name))
