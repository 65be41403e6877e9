# SPDX-License-Identifier: Apache-2.0
"""Tests need root: they count real packets, and a skipped test proves nothing."""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from agent.kernel.probes import Probes
from agent.snapshot.model import Hook

# How long an example takes is the machine's affair.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


def pytest_sessionstart() -> None:
    if os.geteuid():
        pytest.exit("the tests need root: use `make test`", returncode=1)
    # A shell starts what it runs in the background deaf to Ctrl-C, and so would be
    # all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def probes() -> Iterator[Probes]:
    with Probes.load(list(Hook)) as loaded:
        assert loaded.failures == {}
        yield loaded
