# SPDX-License-Identifier: Apache-2.0
"""JSON becomes dataclasses, or a sentence that names the member."""

from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.record.typed import decode


@dataclass(frozen=True)
class Leaf:
    count: int
    share: float | None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("13 is unlucky")


@dataclass(frozen=True)
class Tree:
    name: str
    big: bool
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf]


def tree(leaf: object) -> dict[str, object]:
    return {"name": "n", "big": True, "leaves": [leaf], "by_name": {}}


@given(st.builds(Leaf, st.integers(14, 2**64 - 1), st.none() | st.floats(0, 1e18)))
def test_what_was_written_is_read(leaf: Leaf) -> None:
    written = tree(asdict(leaf)) | {"by_name": {"a": asdict(leaf)}, "newer": [1]}
    assert decode(Tree, written) == Tree("n", True, (leaf,), {"a": leaf})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "this is no JSON object"),
        ({}, "name: this member is missing"),
        (tree({}) | {"name": 5}, "name: this is no text"),
        (tree({}) | {"big": 1}, "big: this is neither true nor false"),
        (tree({}) | {"leaves": {}}, "leaves: this is no list"),
        (tree({"count": 1, "share": 1}) | {"by_name": []}, "by_name: this is no JSON"),
        (tree(5), r"leaves\[0\]: this is no JSON object"),
        (tree({"count": 1}), r"leaves\[0\]\.share: this member is missing"),
        (tree({"count": 1.5, "share": None}), "count: this is no whole number"),
        (tree({"count": True, "share": None}), "count: this is no number"),
        (tree({"count": -1, "share": None}), "count: this number is out of range"),
        (tree({"count": 2**64, "share": None}), "count: this number is out of range"),
        (tree({"count": 1, "share": "1"}), "share: this is no number"),
        (tree({"count": 1, "share": float("nan")}), "share: .* out of range"),
        (tree({"count": 1, "share": 10**400}), "share: .* out of range"),
        (tree({"count": 13, "share": None}), r"leaves\[0\]: 13 is unlucky"),
    ],
)
def test_what_is_wrong_is_named(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(Tree, value)
