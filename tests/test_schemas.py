# SPDX-License-Identifier: Apache-2.0
"""The JSON Schemas of docs/ are those of the code."""

import pytest

from tests.schemas import DOCS, KINDS, schema


@pytest.mark.parametrize("name", KINDS)
def test_docs_are_current(name: str) -> None:
    assert (DOCS / name).read_text() == schema(KINDS[name]), "make schemas"
