# SPDX-License-Identifier: Apache-2.0
"""Two API servers for all tests of this folder: with a watch cache, as they come,
and without, where watches are etcd's own.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_api.server import ApiServer


@pytest.fixture(scope="session", params=[True, False], ids=["cached", "uncached"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    made = ApiServer(tmp_path_factory.mktemp("api"), cached=request.param)
    try:
        made.start()
        rights = Path(__file__).with_name("rights.yaml").read_text()
        made.kubectl("apply -f -", manifest=rights)
        yield made
    finally:
        made.stop()
