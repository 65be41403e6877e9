# SPDX-License-Identifier: Apache-2.0
"""Signals that take down what a command has begun."""

import signal


class EndedError(BaseException):
    """A signal came: not an Exception, so nobody eats it."""


def as_by_ctrl_c() -> None:
    """A service manager's SIGTERM, and the SIGHUP of a terminal that is gone, take down
    namespaces, probes and half-written files as Ctrl-C does; after nohup, which ignores
    it, SIGHUP does nothing.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
