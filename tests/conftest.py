# SPDX-License-Identifier: Apache-2.0
"""Tests need root: they count real packets, and a skipped test proves nothing."""

import os

import pytest


def pytest_sessionstart() -> None:
    if os.geteuid():
        pytest.exit("the tests need root: use `make test`", returncode=1)
