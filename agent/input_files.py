# SPDX-License-Identifier: Apache-2.0
"""Read files that others write: regular ones only, opened without waiting.

A plain open() of a FIFO waits for a writer, and a device may have no end.
"""

import errno
import os
import stat
from typing import BinaryIO


def open_regular_file(path: str) -> BinaryIO:
    """Open a file for reading; OSError also where it is a FIFO, device or socket."""
    # Opened first, checked then: the path may name another file meanwhile.
    file = open(path, "rb", opener=_open_nonblocking)  # noqa: SIM115  the caller closes
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is not a regular file", path)


def _open_nonblocking(path: str, flags: int) -> int:
    """O_NONBLOCK changes nothing for regular files."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_regular_file(path: str, limit: int) -> bytes:
    """Return the content of a regular file; OSError where it has more than `limit`
    bytes.
    """
    with open_regular_file(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is longer than {limit:,} bytes", path)
    return content
