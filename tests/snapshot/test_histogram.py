# SPDX-License-Identifier: Apache-2.0
"""Histogram: exact, monotone, and in agreement with the C that fills it."""

import ctypes
import subprocess
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.contract import Contract, bpf_directory
from agent.snapshot.histogram import Histogram, used_slots
from agent.snapshot.model import Family, Hook, Lengths

CONTRACT = Contract.read(bpf_directory())
EDGES = CONTRACT.edges
LENGTHS = st.integers(0, 2**32 - 1) | st.sampled_from(
    [edge + by for edge in EDGES for by in (-1, 0, 1)]
)


def of(lengths: list[int]) -> Histogram:
    slots = [0] * (len(EDGES) + 1)
    for length in lengths:
        slots[bisect_left(EDGES, length)] += 1
    big = sum(length for length in lengths if length > 65536)
    return Histogram(EDGES, tuple(slots), sum(lengths), big)


def test_edges_are_those_of_the_design() -> None:
    assert (
        *(128, 512, 1500, 4096, 9000, 16384, 32768, 49152, 65536, 81920, 98304),
        *(131072, 163840, 196608, 262144, 524288),
    ) == EDGES


def test_lists_of_the_contract_are_those_of_the_model() -> None:
    assert set(CONTRACT.hooks.values()) == set(Hook)
    assert set(CONTRACT.families.values()) == set(Family)
    assert list(CONTRACT.reasons) == list(range(len(CONTRACT.reasons)))


@pytest.fixture(scope="module")
def slot_of_c(tmp_path_factory: pytest.TempPathFactory) -> "ctypes._NamedFuncPointer":
    """skb_length_slot() of the contract, compiled for this machine."""
    folder = tmp_path_factory.mktemp("contract")
    source, library = folder / "slot.c", folder / "slot.so"
    source.write_text(
        "typedef unsigned int __u32; typedef unsigned long long __u64;\n"
        "typedef unsigned char __u8; typedef unsigned short __u16;\n"
        '#include "skb_length.h"\n'
        '_Static_assert(SKB_LENGTH_LAST + 1 == SKB_LENGTH_SLOTS, "slots");\n'
        '_Static_assert(sizeof(struct skb_length_leaf) % 8 == 0, "leaf");\n'
        "__u32 slot(__u32 length) { return skb_length_slot(length); }\n"
    )
    command = ["cc", "-shared", f"-I{bpf_directory()}", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(Path(library))).slot


@given(length=LENGTHS)
def test_c_and_python_put_a_length_into_the_same_slot(
    slot_of_c: "ctypes._NamedFuncPointer", length: int
) -> None:
    assert slot_of_c(length) == bisect_left(EDGES, length)


@given(a=st.lists(LENGTHS), b=st.lists(LENGTHS))
def test_what_is_added_can_be_taken_away(a: list[int], b: list[int]) -> None:
    both = of(a).add(of(b))
    assert both == of(a + b)
    assert both.since(of(b)) == of(a)
    assert both.cumulative[-1] == both.count == len(a) + len(b)
    assert list(both.cumulative) == sorted(both.cumulative)


def test_counters_that_went_back_are_all_new() -> None:
    assert of([100]).since(of([100, 200, 70000])) == of([100])
    now, before = of([100, 100, 70000]), of([100, 70000])
    for back in (
        replace(now, bytes=before.bytes - 1),
        replace(now, big_bytes=before.big_bytes - 1),
    ):
        assert back.since(before) is back
    before_it, it = Lengths(before, segments=9), Lengths(now, segments=8)
    assert it.since(before_it) is it


def test_a_share_of_what_is_counted_meanwhile_is_no_more_than_all() -> None:
    """The kernel added an skb of 70,000 bytes after `bytes` was read."""
    assert replace(of([70000]), big_bytes=140000).big_share == 1


@given(lengths=st.lists(LENGTHS, min_size=1))
def test_shares(lengths: list[int]) -> None:
    big = [length for length in lengths if length > 65536]
    share = of(lengths).share_above(65536)
    assert share == len(big) / len(lengths)
    if sum(lengths):
        assert of(lengths).big_share == sum(big) / sum(lengths)


def test_nothing_counted_has_no_share() -> None:
    empty = Histogram.empty(EDGES)
    assert empty.share_above(65536) is None
    assert empty.big_share is None


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="slots"):
        Histogram(EDGES, (0,))
    with pytest.raises(ValueError, match="different edges"):
        of([1]).add(Histogram.empty((1, 2)))


def test_used_slots() -> None:
    edges = (1, 2, 3)
    a, b = Histogram(edges, (0, 1, 0, 0)), Histogram(edges, (0, 0, 0, 2))
    assert used_slots([a, b]) == range(1, 4)
    assert used_slots([a]) == range(1, 2)
    assert not used_slots([Histogram.empty(edges)])
