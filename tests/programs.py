# SPDX-License-Identifier: Apache-2.0
"""BPF programs of processes that come and go."""

import contextlib

from tests.process import programs_of


def held(pid: int) -> set[int]:
    """Ids of the programs that a process holds; none where it ends, or closes one of
    its files meanwhile.
    """
    with contextlib.suppress(OSError):
        return programs_of(pid)
    return set()
