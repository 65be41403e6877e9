# SPDX-License-Identifier: Apache-2.0
"""What `top` saw, picture after picture: JSON lines, written as they come.

The first line is a header, each other one a picture of /api/snapshot. A record
whose writer was killed ends in the middle of a line: the rest of it is good.
"""

import contextlib
import json
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, Self, TextIO

from agent import __version__
from agent.errors import AgentError
from agent.input_files import open_regular_file
from agent.snapshot.plain import plain_json
from agent.snapshot.sample import Period, Sample

SCHEMA = "bigtcp.record/v1"
_KIND = "top"
_HEADER_BYTES = 4096


class RecordError(AgentError):
    """A record cannot be used; the message says which line, and why."""


class Writer:
    """Writes a record. An existing file is never written over; where not even the
    header can be written there is no file.
    """

    def __init__(self, path: str) -> None:
        try:
            self._file: TextIO = open(path, "x", encoding="utf-8")  # noqa: SIM115
        except FileExistsError as err:
            raise RecordError(
                f"{path} exists already", "choose another name, or remove it"
            ) from err
        except OSError as err:
            raise RecordError(
                f"{path} cannot be made: {(err.strerror or str(err)).lower()}",
                "choose a file that we may write",
            ) from err
        self._path, self._failed = path, False
        try:
            self._write({"schema": SCHEMA, "kind": _KIND, "version": __version__})
        except OSError as err:
            with contextlib.suppress(OSError):  # what is buffered is tried once more
                self._file.close()
            os.unlink(path)
            raise not_written(path, err) from err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()
        except OSError as err:
            # Some file systems, such as NFS, find out only now that there is no room.
            # What `add` could not write, it has told; another error is not hidden.
            if not self._failed and error is None:
                raise not_written(self._path, err) from err

    def add(self, picture: Mapping[str, Any]) -> None:
        """Append a picture; OSError where it cannot be written. A record that is closed
        takes no more: an answer may come late.
        """
        if not self._file.closed:
            self._write(picture)

    def _write(self, value: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(value, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError:
            self._failed = True
            raise


class Recording:
    """A record that is there; samples are read when they are asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open_regular_file(path)
        except OSError as err:
            raise RecordError(
                f"{path} cannot be read: {(err.strerror or str(err)).lower()}",
                "give a file that `bigtcp-agent top --record` wrote",
            ) from err
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._at)

    def sample(self, number: int) -> Sample:
        """The `number`-th sample, from 0; RecordError where its line is corrupt."""
        line, at = self._at[number]
        self._file.seek(at)
        try:
            return Sample.of(plain_json(self._file.readline()))
        except (ValueError, RecursionError) as err:
            raise RecordError(
                f"{self.path}, line {line}: {_reason(err)}",
                "this line was changed, or written by another version",
            ) from err

    def samples(self) -> Iterator[Sample]:
        """All of them, as `sample` does it."""
        return map(self.sample, range(len(self)))

    def whole(self) -> Period:
        """All of it as one: what passed while an agent counted, run by run of it.

        RecordError where no time passed, or a line is corrupt.
        """
        first, last = 0, len(self) - 1
        edges, found = self.sample(last).edges, None
        while first < last:
            begun = self.sample(first)
            its = range(first, last + 1)
            after = bisect_left(
                its, 1, key=lambda at: self.sample(at).started != begun.started
            )
            period = self.sample(first + after - 1).since(begun)
            if period.seconds > 0 and begun.edges == edges:
                found = found.add(period) if found else period
            first += after
        if not found:
            raise no_interval(self.path)
        return found

    def _index(self) -> None:
        first = self._file.readline(_HEADER_BYTES)
        try:
            header = json.loads(first)
            schema, kind = header["schema"], header.get("kind")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            schema, kind = None, None
        (name, _, version), (ours, _, latest) = (
            each.rpartition("/v") for each in (str(schema), SCHEMA)
        )
        if name == ours and schema != SCHEMA:
            newer = version.isdecimal() and int(version) > int(latest)
            raise RecordError(
                f"{self.path}, line 1: its format is {schema}, ours is {SCHEMA}",
                "use the bigtcp-agent that wrote it" + (", it is newer" * newer),
            )
        if schema != SCHEMA or kind != _KIND:
            raise RecordError(
                f"{self.path}, line 1: this is no record of `bigtcp-agent top`",
                "give a file that `bigtcp-agent top --record` wrote",
            )
        self._at, at = [], len(first)
        for number, line in enumerate(self._file, 2):
            if line.endswith(b"\n") and line.strip():  # the last may be cut off
                self._at.append((number, at))
            at += len(line)
        if not self._at:
            raise RecordError(
                f"{self.path} holds no sample", "let `top --record` run for longer"
            )
        self.sample(0)


def not_written(path: str, err: OSError) -> RecordError:
    """What to raise where a file is open, and cannot be written."""
    return RecordError(
        f"{path} cannot be written: {(err.strerror or str(err)).lower()}",
        "free space there, or choose another folder; then run it again",
    )


def no_interval(path: str) -> RecordError:
    """What to raise where a record holds no time that passed."""
    return RecordError(
        f"{path} has no interval: that takes two samples of one agent",
        "let `top --record` run for longer",
    )


def _reason(err: Exception) -> str:
    if isinstance(err, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return "this is no JSON"
    return str(err)
