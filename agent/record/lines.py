# SPDX-License-Identifier: Apache-2.0
"""What `top` saw, picture after picture: JSON lines, written as they come.

The first line is a header, each other one a picture of /api/snapshot. A record
whose writer was killed ends in the middle of a line: the rest of it is good.
"""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO, Self, TextIO

from agent import __version__
from agent.errors import AgentError
from agent.snapshot.plain import plain_json
from agent.snapshot.sample import Sample

SCHEMA = "bigtcp.record/v1"
_KIND = "top"
_HEADER_BYTES = 4096


class RecordError(AgentError):
    """A record cannot be used; the message says which line, and why."""


class Writer:
    """Writes a record. An existing file is never written over."""

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
        self._write({"schema": SCHEMA, "kind": _KIND, "version": __version__})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What could not be written, `add` has told.
        with contextlib.suppress(OSError):
            self._file.close()

    def add(self, picture: Mapping[str, Any]) -> None:
        """Append a picture; OSError where it cannot be written."""
        self._write(picture)

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, separators=(",", ":")) + "\n")
        self._file.flush()


class Recording:
    """A record that is there; samples are read when they are asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = opened(path)
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
        self._file.seek(self._at[number])
        try:
            return Sample.of(plain_json(self._file.readline()))
        except (ValueError, RecursionError) as err:
            raise RecordError(
                f"{self.path}, line {number + 2}: {_reason(err)}",
                "this line was changed, or written by another version",
            ) from err

    def _index(self) -> None:
        first = self._file.readline(_HEADER_BYTES)
        try:
            header = json.loads(first)
            schema, kind = header["schema"], header.get("kind")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            schema, kind = None, None
        name, _, version = str(schema).rpartition("/v")
        if name == SCHEMA.rpartition("/v")[0] and schema != SCHEMA:
            raise RecordError(
                f"{self.path}, line 1: its format is {schema}, ours is {SCHEMA}",
                "use the bigtcp-agent that wrote it"
                + (", it is newer" if version.isdigit() else ""),
            )
        if schema != SCHEMA or kind != _KIND:
            raise RecordError(
                f"{self.path}, line 1: this is no record of `bigtcp-agent top`",
                "give a file that `bigtcp-agent top --record` wrote",
            )
        self._at, at = [], len(first)
        for line in self._file:
            if line.endswith(b"\n") and line.strip():  # the last may be cut off
                self._at.append(at)
            at += len(line)
        if not self._at:
            raise RecordError(
                f"{self.path} holds no sample", "let `top --record` run for longer"
            )
        self.sample(0)


def _reason(err: Exception) -> str:
    if isinstance(err, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return "this is no JSON"
    return str(err)


def opened(path: str) -> BinaryIO:
    """A file for reading; OSError also where it is a FIFO or a device."""
    file = open(path, "rb", opener=_at_once)  # noqa: SIM115  the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no file")


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for whoever would write to a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)
