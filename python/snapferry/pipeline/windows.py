"""Walks a snapshot's trees window by window, so that no more than a few windows' pages are in memory and zeros cost nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from snapferry import _core
from snapferry.pipeline.pages import PageLoader
from snapferry.repository.threads import Threads

SMALL = 4096
"""Blocks a window where there is data."""

_LEAF = 256
"""Blocks that one page of ids holds at the lowest level (docs/format.md)."""


@dataclass(frozen=True, slots=True)
class Window:
    """The blocks ``first`` to ``end - 1``: all ``zeros``, or with their pages loaded or lost."""

    first: int
    end: int
    zeros: bool


async def windows(
    manifest: _core.Manifest, loader: PageLoader, threads: Threads, first: int = 0, end: int | None = None, *, width: int = SMALL
) -> AsyncIterator[Window]:
    """Windows over the blocks ``first`` to ``end - 1`` (all, unless given), in order and without gaps; those of zeros may be of any length.

    Arguments:
        width: blocks of a window, those left out that lie below pages of zeros only; a multiple of 256.

    When the next window is asked for, the pages of the last may be forgotten.
    """
    last = manifest.blocks if end is None else min(end, manifest.blocks)
    while first < last:
        until = first
        data = min(await threads.run(manifest.next_data, first), last)
        if data == first:
            until = min(await threads.run(_end_of, manifest, first, width // _LEAF), last)
            await loader.load(manifest, first, until)
            data = min(await threads.run(manifest.next_data, first), last)
        if data > first:
            yield Window(first, data, zeros=True)
            first = data
        else:
            yield Window(first, until, zeros=False)
            first = until
        await threads.run(manifest.evict, first)


def _end_of(manifest: _core.Manifest, first: int, leaves: int) -> int:
    """Where the window ends that begins at ``first`` and takes in so many leaves; where nothing is known yet, each counts as one with data."""
    end = first
    for _ in range(leaves):
        end = (manifest.next_data(end) // _LEAF + 1) * _LEAF
    return end
