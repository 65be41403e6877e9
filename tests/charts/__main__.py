# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.charts FOLDER`: the documentation's pictures of the dashboards.

The tests' two nodes, with minutes instead of seconds for each of: BIG TCP off, on but
defeated at a device, on.
"""

import sys
import tempfile
import time
from pathlib import Path

from charts.dashboards.draw import write
from tests.charts.stand import BIG, LEGACY, Stand, stand

SECONDS = 30


def story(on: Stand, seconds: int) -> None:
    on.traffic(seconds)
    on.big_tcp(BIG)
    on.cut(LEGACY)
    on.traffic(seconds)
    on.cut(BIG)
    on.traffic(seconds)


def main(folder: str) -> None:
    begun = time.time()
    with tempfile.TemporaryDirectory() as work, stand(Path(work)) as on:
        story(on, SECONDS)
        minutes = (time.time() - begun) / 60
        on.nodes[0].space.call(
            lambda: write("http://127.0.0.1:9090", minutes, Path(folder))
        )


if __name__ == "__main__":
    main(sys.argv[1])
