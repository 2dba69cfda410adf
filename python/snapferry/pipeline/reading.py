"""The front half of an export: source extents to batches of blocks, read and handed to the core, several at once.

Invariant: every block below ``watermark`` is recorded, marked unreadable, or in a hole of the source.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator

from snapferry import _core
from snapferry.errors import SourceReadError
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.extents import block_count, block_runs, total
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.room import Room
from snapferry.pipeline.sizing import ExportSizing, room_needed
from snapferry.pipeline.tools import Tools
from snapferry.repository.gathering import task_group
from snapferry.source import Source

WINDOW = 64 * 256
"""Blocks whose parent pages are loaded at once: 64 leaves."""

_RUNS_AT_ONCE = 32


class Reader:
    """Reads one source from end to end.

    Arguments:
        on_packs: takes packs that became full.
        on_watermark: called after each batch, when ``watermark`` may have risen.
        parent: the manifest to compare with, and the loader of its pages.
        room: None in a dry run, which builds no packs.
    """

    def __init__(
        self,
        source: Source,
        size: int,
        block_size: int,
        packer: _core.Packer,
        writer: _core.ManifestWriter,
        tools: Tools,
        sizing: ExportSizing,
        *,
        room: Room | None,
        parent: tuple[_core.Manifest, PageLoader] | None,
        skip_unreadable: bool,
        on_packs: Callable[[list[_core.Pack]], Awaitable[None]],
        on_watermark: Callable[[], Awaitable[None]],
    ) -> None:
        self._source = source
        self._size = size
        self._block_size = block_size
        self._packer = packer
        self._writer = writer
        self._tools = tools
        self._sizing = sizing
        self._room = room
        self._parent = parent
        self._skip_unreadable = skip_unreadable
        self._on_packs = on_packs
        self._on_watermark = on_watermark
        self._blocks = block_count(size, block_size)
        self._under_way: dict[int, None] = {}
        self._cursor = 0
        self._windows: dict[int, asyncio.Task[None]] = {}
        self.bytes_read = 0
        self.blocks_read = 0
        self.unreadable: list[tuple[int, int]] = []

    @property
    def watermark(self) -> int:
        """The block below which all is dealt with."""
        return next(iter(self._under_way), self._cursor)

    async def run(self) -> None:
        """Reads everything. Raises ``SourceError``, or what the callbacks raise."""
        size = self._sizing.batch * self._block_size
        runs = block_runs(self._source.extents(0, self._size), self._block_size, self._sizing.batch)
        async with BufferPool(self._tools.budget, size, self._sizing.readers) as pool, task_group() as group:
            while chunk := await self._tools.threads.run(_take, runs):
                for first, count in chunk:
                    await self._begin(first, count, pool, group)
        self._cursor = self._blocks

    async def _begin(self, first: int, count: int, pool: BufferPool, group: asyncio.TaskGroup) -> None:
        """Starts one batch when there is a buffer, room, and the parent's pages for it."""
        buffer = await pool.acquire()
        try:
            await self._load_parent(first, first + count, group)
            need = room_needed(count, self._block_size)
            if self._room is not None:
                await self._room.promise(need)
        except BaseException:
            pool.release(buffer)
            raise
        # In ascending order, so that the first under way is the lowest.
        self._under_way[first] = None
        self._cursor = first + count
        group.create_task(self._batch(first, count, buffer, need, pool))

    async def _batch(self, first: int, count: int, buffer: memoryview, need: int, pool: BufferPool) -> None:
        try:
            length = min(count * self._block_size, self._size - first * self._block_size)
            packs = await self._read(first, count, buffer[:length])
        finally:
            pool.release(buffer)
            if self._room is not None:
                self._room.keep(need)
        del self._under_way[first]
        self.blocks_read += count
        await self._on_packs(packs)
        del packs
        await self._on_watermark()

    async def _read(self, first: int, count: int, data: memoryview) -> list[_core.Pack]:
        try:
            packs = await self._tools.threads.run(self._read_and_process, first, data)
        except SourceReadError:
            if not self._skip_unreadable:
                raise
            packs, unreadable = await self._tools.threads.run(self._salvage, first, count, data)
            self.unreadable += unreadable
            self.bytes_read -= total(unreadable)
        self.bytes_read += len(data)
        return packs

    def _read_and_process(self, first: int, data: memoryview) -> list[_core.Pack]:
        self._source.read_into(first * self._block_size, data)
        return self._packer.process(first, data)

    def _salvage(self, first: int, count: int, data: memoryview) -> tuple[list[_core.Pack], list[tuple[int, int]]]:
        """Block by block: those that cannot be read are recorded as unreadable, never as zeros. Returns (packs, unreadable extents)."""
        packs: list[_core.Pack] = []
        unreadable: list[tuple[int, int]] = []
        good_from = 0
        for number in range(count):
            low = number * self._block_size
            block = data[low : low + self._block_size]
            try:
                self._source.read_into(first * self._block_size + low, block)
            except SourceReadError:
                packs += self._process(first, data, good_from, low)
                good_from = low + self._block_size
                self._writer.mark_unreadable(first + number, 1)
                unreadable.append((first * self._block_size + low, len(block)))
        return packs + self._process(first, data, good_from, len(data)), unreadable

    def _process(self, first: int, data: memoryview, low: int, high: int) -> list[_core.Pack]:
        return self._packer.process(first + low // self._block_size, data[low:high]) if low < high else []

    async def _load_parent(self, first: int, end: int, group: asyncio.TaskGroup) -> None:
        """Loads the parent's pages of the windows that the blocks lie in, and begins with the window after."""
        if self._parent is None:
            return
        last = (end - 1) // WINDOW
        for window in range(first // WINDOW, last + 2):
            if window not in self._windows and window * WINDOW < self._blocks:
                self._windows[window] = group.create_task(self._load_window(window))
        for window in range(first // WINDOW, last + 1):
            await self._windows[window]
        for window in [window for window in self._windows if window < first // WINDOW]:
            del self._windows[window]

    async def _load_window(self, window: int) -> None:
        assert self._parent is not None
        manifest, loader = self._parent
        await loader.load(manifest, window * WINDOW, min((window + 1) * WINDOW, self._blocks))


def _take(runs: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    return list(itertools.islice(runs, _RUNS_AT_ONCE))
