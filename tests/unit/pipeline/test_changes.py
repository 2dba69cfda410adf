"""What a map of changes means for blocks, against a twin that looks at every byte."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.pipeline.changes import RunList, audit_sample, block_changes, pieces
from snapferry.pipeline.extents import total
from snapferry.source import ChangeMap

BLOCK = 8
SIZES = st.integers(0, 15 * BLOCK)


def numbers(runs: tuple[tuple[int, int], ...]) -> set[int]:
    assert all(count > 0 for _, count in runs)
    assert all(a[0] + a[1] <= b[0] for a, b in itertools.pairwise(runs))
    return {number for first, count in runs for number in range(first, first + count)}


@st.composite
def change_maps(draw: st.DrawFn) -> ChangeMap:
    cuts = sorted(draw(st.sets(st.integers(0, 15 * BLOCK), max_size=12)))
    kinds = [draw(st.sampled_from(["changed", "zeros", "kept"])) for _ in cuts]
    spans = [(low, high - low, kind) for (low, high), kind in zip(itertools.pairwise(cuts), kinds, strict=False)]
    chosen = {kind: tuple((low, length) for low, length, of in spans if of == kind) for kind in ("changed", "zeros")}
    return ChangeMap("map", None, chosen["changed"], chosen["zeros"])


@given(change_maps(), SIZES, SIZES, st.lists(st.tuples(st.integers(0, 14), st.integers(1, 3)), max_size=2))
@example(ChangeMap("map", None, (), ()), 0, 0, [])
def test_as_looking_at_every_byte_says(changes: ChangeMap, size: int, parent_size: int, bad_blocks: list[tuple[int, int]]) -> None:
    unreadable = [
        (first * BLOCK, min(count * BLOCK, parent_size - first * BLOCK)) for first, count in bad_blocks if first * BLOCK < parent_size
    ]
    tail = [(parent_size, size - parent_size)] if size > parent_size else []
    found = block_changes(changes, size=size, parent_size=parent_size, block_size=BLOCK, unreadable=unreadable, tail=tail)
    blocks = -(-size // BLOCK)

    def inside(extents: Iterable[tuple[int, int]]) -> set[int]:
        return {byte for offset, length in extents for byte in range(offset, min(offset + length, size))}

    changed, zeros, bad = inside(changes.changed), inside(changes.zeros), inside(unreadable)
    reads, cleared, kept = numbers(found.reads), numbers(found.zeros), numbers(found.kept)
    assert not reads & cleared | reads & kept | cleared & kept
    assert (reads | cleared | kept) == set(range(blocks))
    for block in range(blocks):
        span = set(range(block * BLOCK, min((block + 1) * BLOCK, size)))
        before = set(range(block * BLOCK, min((block + 1) * BLOCK, parent_size)))
        if block in kept:
            assert span == before
            assert not span & (changed | zeros | bad)
        if block in cleared:
            assert span <= zeros
        if span == before and not span & (changed | zeros | bad):
            assert block in kept
        if span <= zeros and span == before and not span & bad:
            assert block in cleared


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300)), max_size=12), st.integers(0, 2**32))
def test_a_sample_lies_within_and_is_large_enough(gaps: list[tuple[int, int]], seed: int) -> None:
    runs, at = [], 0
    for gap, count in gaps:
        runs.append((at + gap, count))
        at += gap + count
    drawn = numbers(audit_sample(runs, random.Random(seed)))
    assert drawn <= numbers(tuple(runs))
    assert len(drawn) == min(total(runs), 10)


def test_one_in_a_thousand_everywhere_alike() -> None:
    runs = [(0, 50_000), (60_000, 1), (100_000, 50_000)]
    drawn = numbers(audit_sample(runs, random.Random(1)))
    assert len(drawn) == 101
    halves = sum(number < 50_000 for number in drawn)
    assert 30 < halves < 70


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=8), st.integers(0, 90), st.integers(0, 90), st.integers(1, 5))
def test_looking_at_ranges_of_runs(gaps: list[tuple[int, int]], start: int, end: int, most: int) -> None:
    runs, at = [], 0
    for gap, count in gaps:
        runs.append((at + gap, count))
        at += gap + count
    every = numbers(tuple(runs))
    looked = RunList(runs)
    assert numbers(tuple(looked.within(start, end))) == {number for number in every if start <= number < end}
    assert looked.next(start, 1000) == min((number for number in every if number >= start), default=1000)
    cut = tuple(pieces(runs, most))
    assert numbers(cut) == every
    assert all(count <= most for _, count in cut)


@pytest.mark.parametrize("count", [1, 9, 10, 11])
def test_few_blocks_are_all_audited(count: int) -> None:
    assert total(audit_sample([(5, count)], random.Random(0))) == min(count, 10)
