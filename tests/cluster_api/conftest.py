# SPDX-License-Identifier: Apache-2.0
"""Two API servers for what follows them: with a watch cache, as they come, and
without, where watches are etcd's own. There the agent has the chart's rights.
"""

from collections.abc import Iterator

import pytest

from tests.chart import helm
from tests.cluster_api.server import ACCOUNT, ApiServer

RIGHTS = (
    "--show-only=templates/rbac.yaml",
    f"--set=serviceAccount.create=false,serviceAccount.name={ACCOUNT}",
    "--set=kubernetes.watchPods=true",
)


@pytest.fixture(scope="session", params=[True, False], ids=["cached", "uncached"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    made = ApiServer(tmp_path_factory.mktemp("api"), cached=request.param)
    try:
        made.start()
        made.kubectl("create -f -", manifest=helm.as_list(helm.template(*RIGHTS)))
        yield made
    finally:
        made.stop()
