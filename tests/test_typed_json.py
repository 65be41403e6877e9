# SPDX-License-Identifier: Apache-2.0
"""JSON becomes dataclasses and structs, or a sentence that names the member."""

import re
from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.typed_json import Count, Number, convert


@dataclass(frozen=True)
class Leaf:
    count: Count
    share: Number | None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise ValueError("13 is unlucky")


@dataclass(frozen=True)
class Tree:
    name: str
    big: bool
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf]


GOOD = {"count": 1, "share": 0.5}


def tree(leaf: object, **by_name: object) -> dict[str, object]:
    return {"name": "n", "big": True, "leaves": [leaf], "by_name": by_name}


@given(st.builds(Leaf, st.integers(14, 2**63 - 1), st.none() | st.floats(0, 1e18)))
def test_what_was_written_is_read(leaf: Leaf) -> None:
    written = tree(asdict(leaf), a=asdict(leaf)) | {"newer": [1]}
    assert convert(written, Tree) == Tree("n", True, (leaf,), {"a": leaf})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "Expected `object`, got `array`"),
        ({}, "name: this member is missing"),
        (tree(GOOD) | {"name": 5}, "name: expected `str`, got `int`"),
        (tree(GOOD) | {"big": 1}, "big: expected `bool`, got `int`"),
        (tree(GOOD) | {"leaves": {}}, "leaves: expected `array`, got `object`"),
        (tree(GOOD) | {"by_name": []}, "by_name: expected `object`, got `array`"),
        (tree(5), "leaves[0]: expected `object`, got `int`"),
        (tree({"count": 1}), "leaves[0].share: this member is missing"),
        (tree(GOOD | {"count": 1.5}), "leaves[0].count: expected `int`, got `float`"),
        (tree(GOOD | {"count": True}), "leaves[0].count: expected `int`, got `bool`"),
        (tree(GOOD | {"count": -1}), "leaves[0].count: expected `int` >= 0"),
        (
            tree(GOOD | {"count": 10**400}),
            "leaves[0].count: expected `int` <= 9223372036854775807",
        ),
        (tree(GOOD | {"share": "1"}), "leaves[0].share: expected `float | null`, got"),
        (tree(GOOD | {"share": True}), "leaves[0].share: expected `float | null`, got"),
        (tree(GOOD | {"share": float("nan")}), "leaves[0].share: expected `float` >="),
        (tree(GOOD | {"share": float("inf")}), "leaves[0].share: expected `float` <"),
        (tree(GOOD | {"share": 10**400}), "leaves[0].share: number out of range"),
        (tree(GOOD | {"count": 13}), "leaves[0]: 13 is unlucky"),
        (tree(GOOD, a=GOOD, b=5), "by_name.b: expected `object`, got `int`"),
        (tree(GOOD, a={"count": 1}, b=GOOD), "by_name.a.share: this member is missing"),
        (tree(GOOD, a=GOOD, b={**GOOD, "count": -1}, c=GOOD), "by_name.b.count: exp"),
        (tree(GOOD, a=5, b=GOOD, c=5), "by_name.c: expected `object`"),
    ],
)
def test_what_is_wrong_is_named(value: object, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        convert(value, Tree)


def test_of_many_keys_not_all_are_tried() -> None:
    """Each try reads all of it once more: an answer of 64 MiB may have a million."""
    value = tree(GOOD, **{f"k{n}": GOOD for n in range(100)}, last=5)
    with pytest.raises(ValueError, match=r"^by_name\[\.\.\.\]: expected `object`"):
        convert(value, Tree)


def test_keys_in_keys() -> None:
    value = {"a": {"x": 1}, "b": {"y": 2, "[...]": "3"}}
    with pytest.raises(ValueError, match=r"^b\.\[\.\.\.\]: expected `int`"):
        convert(value, dict[str, dict[str, int]])
