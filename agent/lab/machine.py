# SPDX-License-Identifier: Apache-2.0
"""The machine that measures, in a few words."""

import os
import platform


def machine() -> str:
    """The CPU's name, where /proc/cpuinfo has one, and how many there are."""
    with open("/proc/cpuinfo") as file:
        names = [line for line in file if line.startswith("model name")]
    name = names[0].split(":", 1)[1].strip() if names else platform.machine()
    return f"{name}, {os.cpu_count()} CPUs"
