"""Random access to a snapshot without restoring it, and its bytes in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ConfigurationError, DamageError
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.convert import open_manifest
from snapferry.pipeline.extent_reader import ExtentReader, IndexOpener
from snapferry.pipeline.extents import block_count, clipped, describe, merged, total
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.leavings import Leavings
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.sizing import read_sizing
from snapferry.pipeline.tools import Tools
from snapferry.transport import HedgeBudget
from snapferry.types import ChannelProgress, Damage, MiB, Snapshot

_STREAM = 8 * MiB
_AHEAD = 3
_PAGES_KEPT = 16 * MiB


class SnapshotReader:
    """Reads any part of one snapshot. An async context; reads may run side by side.

    Arguments:
        replicas: destinations to read from, by name; ``first`` are those that hold the commit.
        costs, lists: as ``Fetcher``.
        allow_unreadable: give zeros for the extents that the source could not supply, instead of raising.
        allow_lost: give zeros for what no replica can supply, and list it in ``lost``, instead of raising.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        replicas: Mapping[str, Destination],
        first: tuple[str, ...],
        tools: Tools,
        open_index: IndexOpener,
        *,
        costs: Mapping[str, float] = MappingProxyType({}),
        lists: Mapping[str, Collection[bytes]] = MappingProxyType({}),
        allow_unreadable: bool = False,
        allow_lost: bool = False,
    ) -> None:
        self.snapshot = snapshot
        self._tools = tools
        self._sizing = read_sizing(tools.budget.total, snapshot.block_size, tools.workers.threads)
        self._fetcher = Fetcher(replicas, tools.board, first, costs, lists)
        self._open_index = open_index
        self._allow_unreadable = allow_unreadable
        self._allow_lost = allow_lost
        self._lost: list[tuple[int, int]] = []
        self._pool = BufferPool(tools.budget, self._sizing.extent, self._sizing.most, self._sizing.spares)
        self._leavings = Leavings()
        self._extents = ExtentReader(self._fetcher, self._pool, tools, open_index)
        self._pages: tuple[_core.Manifest, PageLoader] | None = None
        self._planning = asyncio.Lock()

    @property
    def size(self) -> int:
        """The volume's size in bytes."""
        return self.snapshot.size

    @property
    def block_size(self) -> int:
        """In bytes."""
        return self.snapshot.block_size

    @property
    def unreadable(self) -> tuple[tuple[int, int], ...]:
        """(offset, length) pairs in bytes that the source could not supply when the snapshot was made."""
        return self.snapshot.unreadable

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Objects that were found missing or broken so far, and passed over for a good replica."""
        return tuple(self._fetcher.damage)

    @property
    def lost(self) -> tuple[tuple[int, int], ...]:
        """(offset, length) pairs in bytes that no replica could supply, of what was read so far; zeros stand for them."""
        return merged(self._lost)

    @property
    def failovers(self) -> int:
        """How often another replica had to be asked because one failed, lied or hung."""
        return self._fetcher.failovers

    @property
    def hedges(self) -> HedgeBudget:
        """What was asked for twice because it was late."""
        return self._fetcher.hedges

    def channels(self) -> dict[str, ChannelProgress]:
        """How each replica stands."""
        return self._fetcher.channels()

    @property
    def bytes_fetched(self) -> dict[str, int]:
        """Bytes that came from each destination."""
        return self._fetcher.fetched

    async def __aenter__(self) -> Self:
        """Reads nothing yet."""
        await self._pool.__aenter__()
        self._fetcher.leave_to(self._leavings)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Gives the buffers back."""
        self._fetcher.leave_to(None)
        try:
            await self._leavings.__aexit__(kind, error, traceback)
        finally:
            await self._pool.__aexit__(kind, error, traceback)

    async def pread(self, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes from byte ``offset`` on: fewer only where the volume ends.

        Raises:
            DamageError: no replica can supply all of it, or the source could not (``allow_unreadable`` reads that as zeros).
            DestinationError: no destination answers.
        """
        if length < 0 or offset < 0:
            raise ConfigurationError(f"cannot read {length} bytes at {offset}")
        return bytes(await self._read(offset, max(0, min(length, self.size - offset))))

    async def stream(self, start: int = 0, end: int | None = None) -> AsyncIterator[memoryview]:
        """The bytes from ``start`` to before ``end`` (the volume's end unless given) in order, in pieces of some MiB, with read-ahead.

        Raises as ``pread``; ConfigurationError for what lies outside of the volume.
        """
        end = self.size if end is None else end
        if not 0 <= start <= end <= self.size:
            raise ConfigurationError(f"bytes {start} to {end} are not within the volume, which has {self.size}")
        ahead: deque[asyncio.Task[bytearray]] = deque()
        step = max(self.block_size, _STREAM)
        at = start
        try:
            while at < end or ahead:
                while at < end and len(ahead) < _AHEAD:
                    upto = min(at - at % step + step, end)
                    ahead.append(asyncio.create_task(self._read(at, upto - at)))
                    at = upto
                yield memoryview(await ahead[0]).toreadonly()
                ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _read(self, offset: int, length: int) -> bytearray:
        """Zeros where the volume has zeros, by starting from a buffer of zeros."""
        out = bytearray(length)
        if not length:
            return out
        plan = await self._plan(offset // self.block_size, block_count(offset + length, self.block_size))
        await self._extents.deliver(plan, lambda number, data: plan.copy(number, data, out, offset))
        lost = clipped(plan.lost(), offset, offset + length)
        if lost and not self._allow_lost:
            raise DamageError(f"snapshot {self.snapshot.id}: no replica can supply {total(lost)} bytes at {describe(lost)}", lost)
        self._lost += lost
        unreadable = [] if self._allow_unreadable else clipped(plan.unreadable(), offset, offset + length)
        if unreadable:
            raise DamageError(
                f"snapshot {self.snapshot.id}: the source could not be read when it was made at {describe(unreadable)}", unreadable
            )
        return out

    async def _plan(self, first: int, end: int) -> _core.Plan:
        """A plan of those blocks. Pages are kept for the next reads, and forgotten all at once when they have become many."""
        tools = self._tools
        async with self._planning:
            if self._pages is None or self._pages[1].loaded > _PAGES_KEPT:
                self._pages = open_manifest(tools.keyring, self.snapshot), PageLoader(self._fetcher, tools.threads)
            manifest, loader = self._pages
            await loader.load(manifest, first, end)
            return await tools.threads.run(_core.Plan, tools.keyring, tools.workers, manifest, first, end, self._sizing.extent)
