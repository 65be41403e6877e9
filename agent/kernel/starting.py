# SPDX-License-Identifier: Apache-2.0
"""What an agent's start is made of."""

import os
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

_START_TIME = 22 - 3  # proc_pid_stat(5): of the fields after the name, in ticks


def stages(begun: float, marks: Mapping[str, float]) -> dict[str, float]:
    """Seconds from the start of this process until now, by what took them: our own
    imports, then the loader's stages, one after the other, then the rest. Without
    the imports where the kernel does not tell when this process started.

    `begun` and `marks` as in agent.kernel.loader.Loaded.
    """
    ends = {"imports": begun, **marks, "serving": time.monotonic()}
    try:
        moments = (_process_began(), *ends.values())
    except OSError:
        moments = (ends.pop("imports"), *ends.values())
    return {
        name: round(after - before, 3)
        for name, (before, after) in zip(ends, pairwise(moments), strict=True)
    }


def _process_began() -> float:
    """By CLOCK_MONOTONIC, which stands still while a machine sleeps; procfs counts
    from the boot.
    """
    # The name is bytes, and may be cut off in the middle of a letter.
    _, _, fields = Path("/proc/self/stat").read_bytes().rpartition(b")")
    ticks = int(fields.split()[_START_TIME])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age
