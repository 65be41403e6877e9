# SPDX-License-Identifier: Apache-2.0
"""How long the soak is: `make test-more ARGS="--soak-seconds 60"`."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak-seconds",
        type=int,
        default=600,
        help="how long namespaces come and go (600)",
    )
