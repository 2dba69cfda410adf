"""The front half of an export: a source to batches of blocks, read and handed to the core, several at once.

A stream is read in order, by one reader, while others process what it has read; its size is known when it ends.
Invariant: every block below ``watermark`` is recorded, marked unreadable, inherited, or in a hole of the source.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

from snapferry import _core
from snapferry.errors import SourceReadError
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.extents import block_count, total
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.room import Room
from snapferry.pipeline.sizing import ExportSizing, room_needed
from snapferry.pipeline.steps import WINDOW, Step, all_data
from snapferry.pipeline.tools import Tools
from snapferry.repository.gathering import task_group
from snapferry.source import AnySource, SequentialSource, Source


class Reader:
    """Reads one source from end to end.

    Arguments:
        on_packs: takes packs that became full.
        on_watermark: called after each batch, when ``watermark`` may have risen.
        parent: the manifest to compare with, and the loader of its pages; None where the steps load them, or there is none.
        room: None in a dry run, which builds no packs.
        cuts: blocks at which what goes elsewhere begins, ascending: no batch lies across one, and no pack is filled on both sides of it.
    """

    def __init__(
        self,
        source: AnySource,
        block_size: int,
        packer: _core.Packer,
        writer: _core.ManifestWriter,
        tools: Tools,
        sizing: ExportSizing,
        *,
        room: Room | None,
        parent: tuple[_core.Manifest, PageLoader] | None,
        skip_unreadable: bool,
        cuts: Sequence[int] = (),
        on_packs: Callable[[list[_core.Pack]], Awaitable[None]],
        on_watermark: Callable[[], Awaitable[None]],
    ) -> None:
        self._source = source
        self._size = source.size if isinstance(source, Source) else None
        self._block_size = block_size
        self._packer = packer
        self._writer = writer
        self._tools = tools
        self._sizing = sizing
        self._room = room
        self._parent = parent
        self._skip_unreadable = skip_unreadable
        self._cuts = list(cuts)
        self._side = 0
        self._ended = asyncio.Event()
        self._on_packs = on_packs
        self._on_watermark = on_watermark
        self._under_way: dict[int, None] = {}
        self._cursor = 0
        self._windows: dict[int, asyncio.Task[None]] = {}
        self.bytes_read = 0
        self.blocks_read = 0
        self.unreadable: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        """The volume's size in bytes: of a stream, what has come so far."""
        return self.bytes_read if self._size is None else self._size

    @property
    def blocks(self) -> int:
        """How many blocks that makes."""
        return block_count(self.size, self._block_size)

    @property
    def watermark(self) -> int:
        """The block below which all is dealt with."""
        return next(iter(self._under_way), self._cursor)

    @property
    def position(self) -> int:
        """The watermark in bytes."""
        return min(self.watermark * self._block_size, self.size)

    async def run(self, steps: AsyncGenerator[Step, None] | None = None) -> None:
        """Reads everything, or as ``steps`` say. Raises ``SourceError``, or what the steps and the callbacks raise."""
        size = self._sizing.batch * self._block_size
        async with BufferPool(self._tools.budget, size, self._sizing.readers) as pool, task_group() as group:
            if isinstance(self._source, Source):
                await self._in_steps(
                    steps or all_data(self._source, self._block_size, self._sizing.batch, self._tools.threads), pool, group
                )
            else:
                await self._in_order(self._source, pool, group)
        self._cursor = self.blocks

    async def _in_steps(self, steps: AsyncGenerator[Step, None], pool: BufferPool, group: asyncio.TaskGroup) -> None:
        async with contextlib.aclosing(steps):
            async for step in steps:
                if step.read:
                    for first, count in self._within_cuts(step.first, step.count):
                        await self._cross(first)
                        await self._begin(first, count, pool, group)
                else:
                    self._cursor = step.first + step.count
                    await self._on_watermark()

    def _within_cuts(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """The same blocks in runs that lie across no cut."""
        end = first + count
        for cut in (*self._cuts[bisect_right(self._cuts, first) : bisect_left(self._cuts, end)], end):
            yield first, cut - first
            first = cut

    async def _cross(self, first: int) -> None:
        """Before the first batch on the other side of a cut: ends the pack that is being filled, once the batches before the cut are done."""
        side = bisect_right(self._cuts, first)
        if side == self._side:
            return
        self._side = side
        while self._under_way:
            self._ended.clear()
            await self._ended.wait()
        if self._room is not None:
            await self._on_packs(await self._tools.threads.run(self._packer.finish))

    async def _in_order(self, stream: SequentialSource, pool: BufferPool, group: asyncio.TaskGroup) -> None:
        """Reads a stream to its end. Whoever waits for room or a buffer does not read, so that its writer waits too."""
        first = 0
        while self._size is None:
            await self._cross(first)
            _, most = next(self._within_cuts(first, self._sizing.batch))
            buffer = await pool.acquire()
            try:
                await self._load_parent(first, first + most, group)
                length = await self._fill(stream, buffer[: most * self._block_size])
                count = block_count(length, self._block_size)
                self.bytes_read += length
                if stream.ended:
                    self._size = first * self._block_size + length
                    await self._tools.threads.run(self._writer.set_size, self._size)
                need = await self._promise(count)
            except BaseException:
                pool.release(buffer)
                raise
            self._start(first, count, buffer, length, need, pool, group)
            first += count

    async def _fill(self, stream: SequentialSource, buffer: memoryview) -> int:
        length = 0
        while length < len(buffer) and not stream.ended:
            length += await self._tools.threads.run(stream.read_next, buffer[length:])
        return length

    async def _promise(self, count: int) -> int:
        """Waits for room for so many blocks, and returns how much it is, in bytes."""
        need = room_needed(count, self._block_size)
        if self._room is not None:
            await self._room.promise(need)
        return need

    async def _begin(self, first: int, count: int, pool: BufferPool, group: asyncio.TaskGroup) -> None:
        """Starts one batch when there is a buffer, room, and the parent's pages for it."""
        buffer = await pool.acquire()
        try:
            await self._load_parent(first, first + count, group)
            need = await self._promise(count)
        except BaseException:
            pool.release(buffer)
            raise
        length = min(count * self._block_size, self.size - first * self._block_size)
        self._start(first, count, buffer, length, need, pool, group)

    def _start(
        self, first: int, count: int, buffer: memoryview, length: int, need: int, pool: BufferPool, group: asyncio.TaskGroup
    ) -> None:
        # In ascending order, so that the first under way is the lowest.
        self._under_way[first] = None
        self._cursor = first + count
        group.create_task(self._batch(first, count, buffer, length, need, pool))

    async def _batch(self, first: int, count: int, buffer: memoryview, length: int, need: int, pool: BufferPool) -> None:
        try:
            if isinstance(self._source, Source):
                packs = await self._read(first, count, buffer[:length], self._source)
            else:
                packs = await self._tools.threads.run(self._packer.process, first, buffer[:length])
        finally:
            pool.release(buffer)
            if self._room is not None:
                self._room.keep(need)
        del self._under_way[first]
        self._ended.set()
        self.blocks_read += count
        await self._on_packs(packs)
        del packs
        await self._on_watermark()

    async def _read(self, first: int, count: int, data: memoryview, source: Source) -> list[_core.Pack]:
        try:
            packs = await self._tools.threads.run(self._read_and_process, first, data, source)
        except SourceReadError:
            if not self._skip_unreadable:
                raise
            packs, unreadable = await self._tools.threads.run(self._salvage, first, count, data, source)
            self.unreadable += unreadable
            self.bytes_read -= total(unreadable)
        self.bytes_read += len(data)
        return packs

    def _read_and_process(self, first: int, data: memoryview, source: Source) -> list[_core.Pack]:
        source.read_into(first * self._block_size, data)
        return self._packer.process(first, data)

    def _salvage(self, first: int, count: int, data: memoryview, source: Source) -> tuple[list[_core.Pack], list[tuple[int, int]]]:
        """Block by block: those that cannot be read are recorded as unreadable, never as zeros. Returns (packs, unreadable extents)."""
        packs: list[_core.Pack] = []
        unreadable: list[tuple[int, int]] = []
        good_from = 0
        for number in range(count):
            low = number * self._block_size
            block = data[low : low + self._block_size]
            try:
                source.read_into(first * self._block_size + low, block)
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
        known = self._parent[0].blocks
        for window in range(first // WINDOW, last + 2):
            if window not in self._windows and window * WINDOW < known:
                self._windows[window] = group.create_task(self._load_window(window))
        for window in range(first // WINDOW, last + 1):
            if window in self._windows:
                await self._windows[window]
        for window in [window for window in self._windows if window < first // WINDOW]:
            del self._windows[window]

    async def _load_window(self, window: int) -> None:
        assert self._parent is not None
        manifest, loader = self._parent
        await loader.load(manifest, window * WINDOW, min((window + 1) * WINDOW, manifest.blocks))
