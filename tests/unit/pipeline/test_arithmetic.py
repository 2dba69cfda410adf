"""Extents and sizes: pure functions against naive twins."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.errors import ConfigurationError
from snapferry.pipeline.extents import block_count, block_runs, clipped, describe, merged, total
from snapferry.pipeline.sizing import export_sizing, fair_share, read_sizing, room_needed, smallest_share
from snapferry.types import KiB, MiB

EXTENTS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), max_size=12)


def _points(extents: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> set[int]:
    return {point for offset, length in extents for point in range(offset, offset + length)}


@given(EXTENTS)
def test_merged_covers_the_same_and_nothing_touches(extents: list[tuple[int, int]]) -> None:
    out = merged(extents)
    assert _points(out) == _points(extents)
    assert all(a[0] + a[1] < b[0] for a, b in itertools.pairwise(out))
    assert total(out) == len(_points(extents))


@given(EXTENTS, st.integers(0, 300), st.integers(0, 300))
def test_clipped(extents: list[tuple[int, int]], start: int, end: int) -> None:
    assert _points(clipped(extents, start, end)) == {point for point in _points(extents) if start <= point < end}


@given(EXTENTS, st.sampled_from([1, 4, 16]), st.integers(1, 7))
def test_block_runs_touch_each_block_once_in_order(extents: list[tuple[int, int]], block_size: int, most: int) -> None:
    data = list(merged(extents))
    runs = list(block_runs(data, block_size, most))
    blocks = [block for first, count in runs for block in range(first, first + count)]
    assert blocks == sorted({point // block_size for point in _points(data)})
    assert all(0 < count <= most for _, count in runs)


def test_counts_and_words() -> None:
    assert [block_count(size, 4) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert describe([(0, 1), (5, 2)]) == "0+1, 5+2"
    assert describe([(n, 1) for n in range(10)], 2) == "0+1, 1+1 and 8 more"


@given(st.integers(64 * MiB, 4096 * MiB), st.sampled_from([64 * KiB << n for n in range(7)]), st.integers(1, 64))
def test_an_export_can_always_go_on(budget: int, block_size: int, processors: int) -> None:
    """What cannot drain by itself leaves room for one more pack, whatever the budget."""
    sizing = export_sizing(budget, block_size, processors)
    need = room_needed(sizing.batch, block_size)
    assert sizing.smallest_pack >= need
    assert sizing.smallest_pack >= block_size + 64 * KiB
    assert sizing.largest_pack >= sizing.smallest_pack
    assert sizing.held >= sizing.readers * (sizing.batch * block_size + need) + 2 * sizing.largest_pack
    assert 3 * sizing.held <= 2 * sizing.share
    assert sizing.held + sizing.smallest_pack <= sizing.share <= budget
    read = read_sizing(budget, block_size, processors)
    assert read.extent >= block_size + 64 * KiB
    assert read.extent * read.most <= budget


@given(st.integers(64 * MiB, 4096 * MiB), st.sampled_from([64 * KiB << n for n in range(7)]), st.integers(1, 64), st.integers(1, 1000))
def test_any_share_that_is_given_can_be_used(budget: int, block_size: int, processors: int, side_by_side: int) -> None:
    share = fair_share(budget, block_size, side_by_side)
    assert share in (budget // side_by_side, smallest_share(block_size))
    assert export_sizing(share, block_size, processors).share <= share <= budget
    with pytest.raises(ConfigurationError):
        export_sizing(smallest_share(block_size) - 1, block_size, processors)


def test_a_budget_too_small_is_told() -> None:
    with pytest.raises(ConfigurationError, match="MiB or more"):
        export_sizing(16 * MiB, 4 * MiB, 2)
    with pytest.raises(ConfigurationError):
        read_sizing(1 * MiB, 4 * MiB, 2)


def test_the_usual_sizes() -> None:
    sizing = export_sizing(256 * MiB, 256 * KiB, 2)
    assert (sizing.batch, sizing.readers, sizing.largest_pack) == (32, 3, 32 * MiB)
