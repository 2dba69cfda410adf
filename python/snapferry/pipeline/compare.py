"""Which extents differ between two snapshots: both trees walked together, equal subtrees never read."""

from __future__ import annotations

from collections.abc import AsyncIterator

from snapferry import _core
from snapferry.errors import DamageError, SnapferryError
from snapferry.pipeline.convert import open_manifest
from snapferry.pipeline.extents import clipped, merged
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.windows import SMALL
from snapferry.types import Snapshot

_LARGEST = 1 << 20


async def differences(a: Snapshot, b: Snapshot, fetcher: Fetcher, tools: Tools) -> AsyncIterator[tuple[int, int]]:
    """(offset, length) in bytes of what differs, in order, neighbours as one; up to the end of the longer one, the shorter's missing bytes as zeros.

    Blocks recorded as unreadable differ from everything.

    Raises:
        SnapferryError: the block sizes differ. DamageError: manifest pages that no replica has in good order.
    """
    if a.block_size != b.block_size:
        raise SnapferryError(f"snapshots with blocks of {a.block_size} and of {b.block_size} bytes cannot be compared without reading them")
    one, other = open_manifest(tools.keyring, a), open_manifest(tools.keyring, b)
    loader = PageLoader(fetcher, tools.threads)
    size, blocks = max(a.size, b.size), max(one.blocks, other.blocks)
    # Shared pages are not compared, so that what is unreadable in both is not met there.
    unreadable = [(low // a.block_size, -(-count // a.block_size)) for low, count in (*a.unreadable, *b.unreadable)]
    first, width = 0, SMALL
    begun, length = 0, 0
    while first < blocks:
        end = min(first - first % width + width, blocks)
        loaded = loader.loaded
        await loader.load_difference(one, other, first, end)
        if one.lost(first, end) or other.lost(first, end):
            raise DamageError("the snapshots cannot be compared: manifest pages are damaged on every destination that has them")
        runs = merged([*await tools.threads.run(_core.diff, one, other, first, end), *clipped(unreadable, first, end)])
        for start, count in runs:
            if length and begun + length == start:
                length += count
                continue
            if length:
                yield begun * a.block_size, min(length * a.block_size, size - begun * a.block_size)
            begun, length = start, count
        await tools.threads.run(one.evict, end)
        await tools.threads.run(other.evict, end)
        # Wider where nothing had to be read: what is equal, or zeros in both, costs one look.
        width = min(2 * width, _LARGEST) if loader.loaded == loaded and not runs else SMALL
        first = end
    if length:
        yield begun * a.block_size, min(length * a.block_size, size - begun * a.block_size)
