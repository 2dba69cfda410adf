"""Feeds manifests with the pages they ask for, from any replica that has them in good order."""

from __future__ import annotations

import asyncio

from snapferry import _core
from snapferry.pipeline.fetching import Fetcher, NoReplica
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.threads import Threads

_AT_ONCE = 8


class PageLoader:
    """Loads pages of manifests through one fetcher. A manifest remembers what it asked for last, so one load runs at a time.

    Arguments:
        patient: give pages up that no destination could be reached for, instead of raising. For a parent's pages: blocks whose
            pages are lost are only stored again.
    """

    def __init__(self, fetcher: Fetcher, threads: Threads, *, patient: bool = False) -> None:
        self._fetcher = fetcher
        self._threads = threads
        self._patient = patient
        self._lock = asyncio.Lock()
        self.loaded = 0
        self.lost = 0

    async def load(self, manifest: _core.Manifest, first: int, end: int, *, places: bool = True) -> None:
        """Until the blocks ``first`` to ``end - 1`` are known (their ``places`` too), or lost because no replica has their pages.

        Raises:
            DestinationError: no replica answers at all.
        """
        async with self._lock:
            while fetches := await self._threads.run(manifest.missing, first, end, places):
                await self._feed_all([(manifest, fetch) for fetch in fetches])

    async def load_runs(self, manifest: _core.Manifest, runs: list[tuple[int, int]], *, places: bool = True) -> None:
        """As ``load``, for (first, count) runs of blocks that lie scattered."""
        async with self._lock:
            while fetches := await self._threads.run(manifest.missing_of, runs, places):
                await self._feed_all([(manifest, fetch) for fetch in fetches])

    async def load_difference(self, a: _core.Manifest, b: _core.Manifest, first: int, end: int) -> None:
        """Until the two can be compared over that range of blocks. Raises as ``load``."""
        async with self._lock:
            while True:
                of_a, of_b = await self._threads.run(_core.missing_for_diff, a, b, first, end)
                if not of_a and not of_b:
                    return
                await self._feed_all([(a, fetch) for fetch in of_a] + [(b, fetch) for fetch in of_b])

    async def _feed_all(self, fetches: list[tuple[_core.Manifest, _core.Fetch]]) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def feed(manifest: _core.Manifest, fetch: _core.Fetch) -> None:
            async with gate:
                await self._feed(manifest, *fetch)

        await together(feed(manifest, fetch) for manifest, fetch in fetches)

    async def _feed(self, manifest: _core.Manifest, pack: bytes, offset: int, length: int) -> None:
        async def check(data: memoryview) -> str | None:
            failed = await self._threads.run(manifest.feed, pack, offset, data)
            return f"{failed} manifest pages at byte {offset} fail their check" if failed else None

        try:
            await self._fetcher.read(pack, offset, length, check)
        except NoReplica as error:
            if not error.answered and not self._patient:
                raise combined("no destination answers", error.failures) from error
            self.lost += 1
            await self._threads.run(manifest.give_up, pack, offset, length)
        else:
            self.loaded += length
