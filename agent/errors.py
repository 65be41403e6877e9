# SPDX-License-Identifier: Apache-2.0
"""What ends a command: one sentence, one hint, one exit code."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command; 130 is Ctrl-C, as in a shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    KERNEL = 3  # the kernel, or the rights to use it, are missing
    UNREACHABLE = 4  # no agent answers
    FINDINGS = 5  # the answer itself is bad news
    INTERRUPTED = 130


class AgentError(Exception):
    """The command cannot do its job.

    `message` says what, on what, why; `hint` what to do about it; `detail`
    is for --verbose (the compiler's or the verifier's last lines).
    """

    exit_code = Exit.FAILED

    def __init__(self, message: str, hint: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class KernelError(AgentError):
    """The kernel cannot, or may not, do what the agent needs."""

    exit_code = Exit.KERNEL


class OldKernelError(KernelError):
    """The kernel is from before BIG TCP, or lost what we know it by."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            "use Linux 5.19 or newer, the first with BIG TCP; where it is, a newer "
            "bigtcp-agent",
        )


class BadValueError(AgentError):
    """A flag, or its twin in the environment, has a value nobody can use."""

    exit_code = Exit.USAGE
