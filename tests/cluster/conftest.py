# SPDX-License-Identifier: Apache-2.0
"""One cluster for all tests here; it dies with them, also by SIGKILL."""

from collections.abc import Iterator

import pytest

from tests.cluster import cluster as clusters
from tests.cluster.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    try:
        host = clusters.up(with_us=True)
        with clusters.attached() as attached:
            yield attached
    finally:
        clusters.down()
    host.wait()
    assert clusters.remains() == []


@pytest.fixture(scope="session")
def stocked(cluster: Cluster) -> Cluster:
    """The same, whose nodes have the images of the Dockerfile."""
    for target in ("agent", "netperf"):
        archive = clusters.CACHE.parent / f"image/{target}.tar"
        if not archive.exists():
            pytest.fail(f"{archive} is missing: make image")
        cluster.load(archive)
    return cluster
