"""Brings the blocks of one plan: reads its extents side by side, hands them on verified, and goes to the next replica where one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from snapferry import _core
from snapferry.destination import Destination
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.fetching import Expected, Fetcher, Memory, NoReplica
from snapferry.pipeline.tools import Tools
from snapferry.repository.failures import combined
from snapferry.repository.gathering import task_group, together
from snapferry.repository.index_cache import IndexCache
from snapferry.repository.presence import list_presence

IndexOpener = Callable[[], Awaitable[_core.Index]]
Deliver = Callable[[int, memoryview], int]
"""(extent number, bytes) to how many of its records failed; called in a thread."""


def index_opener(cache: IndexCache, replicas: Mapping[str, Destination]) -> IndexOpener:
    """Opens the index of all that ``replicas`` hold; every pack that any of them lists counts as usable."""

    async def open_index() -> _core.Index:
        presence = await list_presence(replicas)
        loaded = await cache.load(replicas, presence, complete=True)
        loaded.index.declare_usable(b"".join({pack for packs in presence.packs.values() for pack in packs}))
        return loaded.index

    return open_index


class ExtentReader:
    """Delivers plans through one fetcher and one pool of buffers.

    Arguments:
        open_index: loads the index, in which other places of a block are looked up when all replicas of its pack have failed; once.
        on_extent: called when one has been read, or given up.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        pool: BufferPool,
        tools: Tools,
        open_index: IndexOpener,
        on_extent: Callable[[], object] = lambda: None,
    ) -> None:
        self._on_extent = on_extent
        self._fetcher = fetcher
        self._pool = pool
        self._tools = tools
        self._open_index = open_index
        self._index: _core.Index | None = None
        self._named: set[bytes] = set()
        self._opening = asyncio.Lock()
        self._renewing = asyncio.Lock()
        self._renewed = False

    async def deliver(self, plan: _core.Plan, put: Deliver) -> None:
        """Everything in the plan that some replica has in good order; what is left is in ``plan.lost()``.

        Raises:
            DestinationError: no replica answers at all. What ``put`` raises.
        """
        threads = self._tools.threads
        await self._learn(plan)
        await self._read_all(await threads.run(plan.extents), put)
        # Also what has no place at all, because the page of places that told it is lost.
        if await threads.run(plan.lost):
            index = await self._other_places()
            added = await threads.run(plan.relocate, index)
            if added:
                await self._learn(plan)
                await self._read_all(added, put)
                if not await threads.run(plan.lost):
                    self._fetcher.forgive(self._named)

    async def _learn(self, plan: _core.Plan) -> None:
        await together(self._learn_one(plan, *fetch) for fetch in await self._tools.threads.run(plan.headers))

    async def _learn_one(self, plan: _core.Plan, pack: bytes, offset: int, length: int) -> None:
        async def check(header: memoryview) -> str | None:
            if plan.learn(pack, header):
                return None
            if not self._tools.keyring.lacks_epoch_of(header):
                return "its header fails its check"
            # Nothing in a header is proven before a key opens it: another replica may have a true one.
            await self._renew_keys()
            return None if plan.learn(pack, header) else "its header names a key epoch that this key does not hold"

        try:
            await self._fetcher.read(pack, offset, length, check)
        except NoReplica as error:
            # Else its records will fail one and all, and are then looked for elsewhere.
            if not error.answered:
                raise combined("no destination answers", error.failures) from error

    async def _renew_keys(self) -> None:
        async with self._renewing:
            if not self._renewed:
                self._renewed = True
                await self._tools.renew_keys()

    async def _read_all(self, extents: list[tuple[int, _core.Fetch]], put: Deliver) -> None:
        with self._fetcher.expecting(sum(length for _, (_, _, length) in extents)) as expected:
            async with task_group() as group:
                for number, fetch in extents:
                    held = [await self._pool.acquire()]
                    task = group.create_task(self._read(number, fetch, held, expected, put))
                    # One that is cancelled before its first step has not taken it.
                    task.add_done_callback(partial(self._release_all, held))

    async def _read(self, number: int, fetch: _core.Fetch, held: list[memoryview], expected: Expected, put: Deliver) -> None:
        """Takes the buffer out of ``held``."""
        pack, offset, length = fetch

        async def check(data: memoryview) -> str | None:
            failed = await self._tools.threads.run(put, number, data)
            return f"{failed} records between bytes {offset} and {offset + length} fail their check" if failed else None

        def spare() -> Memory | None:
            more = self._pool.spare()
            return None if more is None else Memory(more[:length], partial(self._pool.release_spare, more))

        expected.taken(length)
        buffer = held.pop()
        memory = Memory(buffer[:length], partial(self._pool.release, buffer))
        try:
            await self._fetcher.read_extent(pack, offset, memory, check, spare)
        except NoReplica as error:
            if not error.answered:
                raise combined("no destination answers", error.failures) from error
        self._on_extent()

    def _release_all(self, held: list[memoryview], task: asyncio.Task[None]) -> None:
        del task
        while held:
            self._pool.release(held.pop())

    async def _other_places(self) -> _core.Index:
        async with self._opening:
            if self._index is None:
                self._index = await self._open_index()
                self._named = {pack for pack, _ in self._index.packs()}
        return self._index
