# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus, in a namespace of the lab."""

import contextlib
import json
import os
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.lab.netns import Namespace, wait_until
from tests.process import fetch

TOOLS = Path(os.environ.get("TOOLS", Path.home() / ".cache/bigtcp-agent/debian"))
Sample = dict[str, Any]


def tool(name: str) -> str:
    """A program of Debian's Prometheus packages, unpacked by `make`."""
    found = sorted(TOOLS.glob(f"*/usr/bin/{name}"))
    assert found, f"no {name} under {TOOLS}: run `make test`"
    return str(found[0])


@dataclass(frozen=True)
class Prometheus:
    """Queries, asked from inside the namespace where it runs."""

    namespace: Namespace

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of /api/v1; an AssertionError says what was wrong."""
        encoded = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:9090/api/v1/{path}?{encoded}"
        status, body = self.namespace.call(lambda: fetch(url))
        assert status == 200, f"{parameters}: {body}"
        return json.loads(body)["data"]

    def up(self) -> bool:
        """Does it answer yet?"""
        url = "http://127.0.0.1:9090/-/ready"
        return self.namespace.call(lambda: fetch(url))[0] == 200

    def samples(self, promql: str, time: float | None = None) -> list[Sample]:
        """Of an instant query: `metric` and `value`."""
        at = {} if time is None else {"time": f"{time:.3f}"}
        found: list[Sample] = self.get("query", query=promql, **at)["result"]
        return found

    def query(self, promql: str, time: float | None = None) -> list[float]:
        """Values of an instant query."""
        return [float(found["value"][1]) for found in self.samples(promql, time)]


@contextlib.contextmanager
def prometheus(
    namespace: Namespace,
    scrape: dict[str, Any],
    folder: Path,
    prefix: tuple[str, ...] = (),
) -> Iterator[Prometheus]:
    """`scrape`: of the configuration what the lab's short intervals leave open."""
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"},
        **scrape,
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    namespace.start(
        *prefix,
        tool("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:9090",
    )
    server = Prometheus(namespace)
    wait_until(server.up, "Prometheus to be ready")
    yield server


def require_valid_metrics(text: str) -> None:
    """Fail where `promtool check metrics` has a word to say about them."""
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
