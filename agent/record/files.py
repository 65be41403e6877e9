# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole, or not at all."""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import TextIO

from agent.input_files import open_regular_file
from agent.record.lines import RecordError, not_written


@contextlib.contextmanager
def whole(path: str, *, over: bytes = b"") -> Iterator[TextIO]:
    """A text file that appears at `path` once all is written, and does not where
    that fails. Whether it can be made is told at once; the text is written at the end.

    RecordError where it cannot be made, or written; and where there is a file already,
    unless that begins with `over`, in whatever case.
    """
    path = os.path.realpath(path)
    _require_free(path, over=over)
    folder, name = os.path.split(path)
    # Made anew, under a name that nobody could prepare a link at.
    beside = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    try:
        file = open(beside, "x", encoding="utf-8")  # noqa: SIM115  closed below
    except OSError as err:
        raise RecordError(
            f"{path} cannot be written: {(err.strerror or str(err)).lower()}",
            "name a file in a folder that is there, and ours",
        ) from err
    try:
        # In memory first: so an error of this file is told from all others.
        text = io.StringIO()
        yield text
        try:
            with file:
                file.write(text.getvalue())
        except OSError as err:
            raise not_written(path, err) from err
        try:
            os.link(beside, path)
        except OSError:  # it is there; or this file system has no hard links
            _require_free(path, over=over)
            os.replace(beside, path)
    finally:
        file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


@contextlib.contextmanager
def in_folder(folder: str | None, names: Sequence[str]) -> Iterator[dict[str, TextIO]]:
    """A new file NAME.json for each name, in a folder that is made where it is
    missing; all of them as `whole` does it. Nothing without a folder.
    """
    if folder is None:
        yield {}
        return
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as err:
        raise RecordError(
            f"{folder} cannot be made: {(err.strerror or str(err)).lower()}",
            "name a folder that is ours",
        ) from err
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(whole(os.path.join(folder, f"{name}.json")))
            for name in names
        }


def _require_free(path: str, *, over: bytes) -> None:
    if not os.path.lexists(path):
        return
    if not os.path.isfile(path):
        raise RecordError(f"{path} is there and no file", "choose another name")
    if not over or not _begins_with(path, over):
        raise RecordError(f"{path} exists already", "choose another name, or remove it")


def _begins_with(path: str, these: bytes) -> bool:
    """Or is it empty?"""
    with open_regular_file(path) as file:
        return file.read(len(these)).lower() in (b"", these)
