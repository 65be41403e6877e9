# SPDX-License-Identifier: Apache-2.0
"""What is wanted of a Kubernetes API server; agent.cluster.kube.Kube is one."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

Json = dict[str, Any]


class RefusedError(OSError):
    """The API server answered, and it was no. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api(Protocol):
    """An API server; `seconds` is how long it may be silent."""

    def get(self, path: str, query: Mapping[str, str], seconds: float) -> Json:
        """A JSON object. RefusedError, or OSError where there was no answer."""

    def watch(
        self, path: str, query: Mapping[str, str], seconds: float
    ) -> AbstractContextManager[Iterator[Json]]:
        """A JSON object for each event, as they come; errors as `get`."""

    def close(self) -> None:
        """End the watches that stand: their readers get an OSError, or the end."""
