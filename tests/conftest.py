# SPDX-License-Identifier: Apache-2.0
"""Tests need root: they count real packets, and a skipped test proves nothing."""

import os
from collections.abc import Iterator

import pytest

from agent.kernel.probes import Probes
from agent.snapshot.model import Hook


def pytest_sessionstart() -> None:
    if os.geteuid():
        pytest.exit("the tests need root: use `make test`", returncode=1)


@pytest.fixture(scope="session")
def probes() -> Iterator[Probes]:
    with Probes.load(list(Hook)) as loaded:
        assert loaded.failures == {}
        yield loaded
