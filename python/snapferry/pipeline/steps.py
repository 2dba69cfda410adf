"""In which order a source is gone over, and what need not be read: three ways, each a stream of steps for ``Reader``.

A step that is not read is over when it is handed on: holes, zeros, or blocks that were taken over from the parent.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from snapferry import _core
from snapferry.errors import SnapferryError
from snapferry.pipeline.changes import BlockChanges, Run, RunList, pieces
from snapferry.pipeline.extents import block_runs, merged
from snapferry.pipeline.pages import PageLoader
from snapferry.repository.threads import Threads
from snapferry.source import Source

WINDOW = 64 * 256
"""Blocks whose parent pages are loaded at once: 64 leaves."""

_LEAF = 256
_RUNS_AT_ONCE = 32


class MapUnusable(SnapferryError):
    """A map of changes cannot be relied on after all: everything has to be read."""


@dataclass(frozen=True, slots=True)
class Step:
    """The blocks ``first`` to ``first + count - 1``, above all that came before; ``read``: they are to be read."""

    first: int
    count: int
    read: bool = True


async def all_data(source: Source, block_size: int, batch: int, threads: Threads) -> AsyncGenerator[Step, None]:
    """Every extent that may hold data, in steps of at most ``batch`` blocks."""
    runs = block_runs(source.extents(0, source.size), block_size, batch)
    while chunk := await threads.run(_take, runs):
        for first, count in chunk:
            yield Step(first, count)


async def only_changes(
    changes: BlockChanges, batch: int, manifest: _core.Manifest, loader: PageLoader, writer: _core.ManifestWriter | None, threads: Threads
) -> AsyncGenerator[Step, None]:
    """What a map of changes names; all else is inherited unread by ``writer`` (None in a dry run), which begins as the parent here.

    Raises:
        MapUnusable: pages of the parent are lost.
    """
    if writer is not None:
        if changes.blocks and changes.blocks != manifest.blocks:
            await _load(loader, manifest, [(changes.blocks - 1, 1)])
        await threads.run(writer.inherit)
    for group in _groups(changes, batch):
        edges = [run for step in group for run in _pages_of(step)]
        await _load(loader, manifest, edges)
        for step in group:
            if not step.read and writer is not None:
                await threads.run(writer.clear, step.first, step.count)
            yield step


async def taken_over(
    changes: BlockChanges, batch: int, manifest: _core.Manifest, loader: PageLoader, packer: _core.Packer, threads: Threads
) -> AsyncGenerator[Step, None]:
    """What a map of changes names, and what of the rest no usable pack holds; the rest is recorded page by page without being read."""
    reads, named = RunList(changes.reads), RunList(merged((*changes.reads, *changes.zeros)))
    kept = RunList(changes.kept)
    at = 0
    while at < changes.blocks:
        data = await threads.run(manifest.next_data, at) if at < manifest.blocks else changes.blocks
        data = changes.blocks if data >= manifest.blocks else data
        upto = min(data, named.next(at, changes.blocks), changes.blocks)
        if upto > at:  # Zeros in both.
            yield Step(at, upto - at, read=False)
            at = upto
            continue
        end = min(at - at % WINDOW + WINDOW, changes.blocks)
        await loader.load(manifest, at, min(end, manifest.blocks))
        wanted = reads.within(at, end)
        for first, count in kept.within(at, end):
            wanted += await threads.run(packer.take_over, first, count)
        for first, count in pieces(merged(wanted), batch):
            yield Step(first, count)
        yield Step(at, end - at, read=False)
        at = end


def _take(runs: Iterator[Run]) -> list[Run]:
    return list(itertools.islice(runs, _RUNS_AT_ONCE))


def _groups(changes: BlockChanges, batch: int) -> Iterator[list[Step]]:
    """The steps in order, as many at a time as pages of the parent are loaded at once."""
    reads = (Step(first, count) for first, count in pieces(changes.reads, batch))
    zeros = (Step(first, count, read=False) for first, count in changes.zeros)
    group: list[Step] = []
    leaves = 0
    for step in heapq.merge(reads, zeros, key=lambda step: step.first):
        needed = sum(count // _LEAF + 2 for _, count in _pages_of(step))
        if group and leaves + needed > WINDOW // _LEAF:
            yield group
            group, leaves = [], 0
        group.append(step)
        leaves += needed
    if group:
        yield group


def _pages_of(step: Step) -> list[Run]:
    """The blocks whose pages a step needs: of zeros only the ends, since pages between them are dropped unread."""
    return [(step.first, step.count)] if step.read else [(step.first, 1), (step.first + step.count - 1, 1)]


async def _load(loader: PageLoader, manifest: _core.Manifest, runs: list[Run]) -> None:
    lost = loader.lost
    await loader.load_runs(manifest, runs)
    if loader.lost > lost:
        raise MapUnusable("pages of the parent's manifest are damaged on every destination that has them")
