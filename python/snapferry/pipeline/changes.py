"""What a map of changes means for blocks: which to read, which are zeros, and which of the rest to audit. Pure, but for the dice."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from snapferry.pipeline.extents import block_count, clipped, merged, total
from snapferry.source import ChangeMap

Run = tuple[int, int]
"""(first, count) of blocks."""

AUDIT_ONE_IN = 1000
AUDIT_LEAST = 10


@dataclass(frozen=True, slots=True)
class BlockChanges:
    """All in runs of blocks, ascending and apart.

    Attributes:
        blocks: of the volume now.
        reads: must be read.
        zeros: are said to be zeros.
        kept: are said to be as in the parent.
    """

    blocks: int
    reads: tuple[Run, ...]
    zeros: tuple[Run, ...]
    kept: tuple[Run, ...]


def block_changes(
    changes: ChangeMap,
    *,
    size: int,
    parent_size: int,
    block_size: int,
    unreadable: Iterable[tuple[int, int]] = (),
    tail: Iterable[tuple[int, int]] = (),
) -> BlockChanges:
    """What ``changes`` mean for a source of ``size`` bytes.

    Arguments:
        unreadable: (offset, length) in bytes of what the parent has no bytes of: always read.
        tail: (offset, length) in bytes of the data past the parent's end.

    Read besides what changed: blocks that became zeros in part, and the one that either end cuts, where the sizes differ.
    """
    blocks = block_count(size, block_size)
    # Blocks below are the same part of the volume in both; the next one is cut differently.
    shared = blocks if size == parent_size else min(size, parent_size) // block_size
    cut = [(shared, 1)] if shared < blocks else []
    whole: list[Run] = []
    edges: list[Run] = []
    for offset, length in merged(clipped(changes.zeros, 0, size)):
        low, high = block_count(offset, block_size), (offset + length) // block_size
        if offset + length == size:
            high = blocks
        if low < high:
            whole.append((low, high - low))
        edges += _subtract(_touched([(offset, length)], block_size), [(low, high - low)] if low < high else [])
    touched = _touched((*clipped(changes.changed, 0, size), *clipped(unreadable, 0, size), *clipped(tail, 0, size)), block_size)
    reads = merged((*touched, *edges, *cut))
    zeros = tuple(_subtract(whole, reads))
    kept = tuple(_subtract([(0, shared)] if shared else [], merged((*reads, *zeros))))
    return BlockChanges(blocks, reads, zeros, kept)


def audit_sample(runs: Sequence[Run], dice: random.Random) -> tuple[Run, ...]:
    """One in a thousand of the blocks in ``runs``, and at least ten (or all), drawn by ``dice``."""
    count = total(runs)
    drawn = sorted(dice.sample(range(count), min(count, max(AUDIT_LEAST, -(-count // AUDIT_ONE_IN)))))
    out: list[Run] = []
    passed, at = 0, 0
    for first, length in runs:
        upto = bisect.bisect_left(drawn, passed + length, at)
        out += [(first + rank - passed, 1) for rank in drawn[at:upto]]
        passed, at = passed + length, upto
    return merged(out)


def pieces(runs: Iterable[Run], most: int) -> Iterator[Run]:
    """The same blocks in runs of at most ``most``."""
    for first, count in runs:
        for start in range(first, first + count, most):
            yield start, min(most, first + count - start)


class RunList:
    """Runs that are looked at range by range, each look in logarithmic time."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._firsts = [first for first, _ in runs]

    def within(self, start: int, end: int) -> list[Run]:
        """What of them lies within ``start`` to ``end``."""
        low = max(bisect.bisect_right(self._firsts, start) - 1, 0)
        return clipped(self._runs[low : bisect.bisect_left(self._firsts, end)], start, end)

    def next(self, start: int, otherwise: int) -> int:
        """The first block of theirs that is not below ``start``; ``otherwise`` if there is none."""
        at = bisect.bisect_right(self._firsts, start)
        if at and sum(self._runs[at - 1]) > start:
            return start
        return self._firsts[at] if at < len(self._firsts) else otherwise


def _touched(extents: Iterable[tuple[int, int]], block_size: int) -> tuple[Run, ...]:
    spans = ((offset // block_size, block_count(offset + length, block_size)) for offset, length in extents if length)
    return merged((low, high - low) for low, high in spans)


def _subtract(runs: Iterable[Run], others: Sequence[Run]) -> list[Run]:
    """What of ``runs`` is in none of ``others``; both ascending and apart."""
    out: list[Run] = []
    taken = RunList(others)
    for first, count in runs:
        at = first
        for start, length in taken.within(first, first + count):
            if start > at:
                out.append((at, start - at))
            at = start + length
        if at < first + count:
            out.append((at, first + count - at))
    return out
