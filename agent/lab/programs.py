# SPDX-License-Identifier: Apache-2.0
"""Programs of others that the lab runs, and the packages they come in."""

import shutil

from agent.errors import AgentError

_NETPERF = (
    "apt install netperf (Debian 12 has it in non-free), or let `make demo` do it"
)
_PACKAGES = {"ip": "iproute2"} | dict.fromkeys(
    ("nsenter", "setpriv", "taskset", "unshare"), "util-linux"
)


def require(*programs: str) -> None:
    """AgentError where one of them is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            package = _PACKAGES.get(program)
            hint = f"apt install {package}" if package else _NETPERF
            raise AgentError(f"{program} is not installed", hint)
