"""Index segments while an export runs: every 8 packs or 10 seconds. They are what an interrupted export resumes from.

A destination gets a segment once it has acknowledged the packs that are named in it, whatever the others have.
"""

from __future__ import annotations

import asyncio
import contextlib

from snapferry import _core
from snapferry.errors import SnapferryError
from snapferry.repository import names
from snapferry.repository.index_cache import IndexCache
from snapferry.repository.threads import Threads
from snapferry.transport import FanOut

PACKS = 8
SECONDS = 10.0


class SegmentWriter:
    """Names packs in segments.

    Arguments:
        seconds: the longest a pack waits for its segment.
    """

    def __init__(
        self,
        packer: _core.Packer,
        index: _core.Index,
        cache: IndexCache,
        fanout: FanOut,
        threads: Threads,
        *,
        seconds: float = SECONDS,
    ) -> None:
        self._packer = packer
        self._index = index
        self._cache = cache
        self._fanout = fanout
        self._threads = threads
        self._seconds = seconds
        self._pending: list[bytes] = []
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._closed = False

    def sent(self, pack: bytes) -> None:
        """A data pack is on its way."""
        self._pending.append(pack)
        self._some.set()
        if len(self._pending) >= PACKS:
            self._many.set()

    async def run(self) -> None:
        """Writes segments until closed."""
        while True:
            await self._some.wait()
            if not self._closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds):
                        await self._many.wait()
            if self._closed:
                return
            await self.flush()

    def close(self) -> None:
        """Lets ``run`` end after what it is doing; what is pending waits for ``flush``."""
        self._closed = True
        self._some.set()
        self._many.set()

    async def flush(self) -> None:
        """One segment of all packs that wait for one, and of the manifest packs finished so far. None if there are none.

        What the index has taken into memory is moved into the cache's files now and then, and when it is closed.
        """
        packs, self._pending = self._pending, []
        if not self._closed:
            self._some.clear()
            self._many.clear()
        segment = await self._threads.run(self._packer.segment, packs)
        if segment is not None:
            mark = self._fanout.mark()
            await self._fanout.send(names.segment(segment.id), segment.data, len(segment.data), _nothing, after=mark)
        if not self._closed:
            await self._cache.fold(self._index)
            return
        # What is not in the cache now is fetched the next time.
        with contextlib.suppress(SnapferryError):
            await self._cache.fold(self._index, last=True)


def _nothing() -> None:
    """Segments are small; nothing waits for them."""
