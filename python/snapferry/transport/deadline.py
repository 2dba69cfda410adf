"""A destination whose calls end: each has so much time and no more, whatever the store does. A store that trickles makes headway for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from typing_extensions import Buffer

from snapferry.destination.contract import Destination, ObjectInfo, free_bytes, list_keys
from snapferry.errors import DestinationUnreachable
from snapferry.transport.wrapper import Wrapper

CALL_SECONDS = 180.0
"""For a call and its retries."""

SLOWEST = 64 << 10
"""Bytes a second that are waited for beyond that."""

_LONG_LISTING = 64 << 20
"""Bytes of names that a listing may have."""


def with_deadline(destination: Destination, seconds: float = CALL_SECONDS) -> Destination:
    """``destination``, whose calls are given up after ``seconds`` and what their bytes take at ``SLOWEST``. Stands above whatever tries again,
    and below limits of rates, which make calls wait on purpose.
    """
    return _Bounded(destination, seconds)


class _Bounded(Wrapper):
    def __init__(self, inner: Destination, seconds: float) -> None:
        super().__init__(inner)
        self._seconds = seconds

    async def create(self, key: str, data: Buffer) -> bool:
        with memoryview(data) as view:
            size = view.nbytes
        async with self._within(f"{key} was not stored", size):
            return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        async with self._within(f"{key} was not read", limit):
            return await self.inner.read(key, limit)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        async with self._within(f"{key} was not read", buffer.nbytes):
            await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        async with self._within(f"{key} was not read", length):
            return await self.inner.read_tail(key, length)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Each item has the time of a call."""
        items = self.inner.list(prefix)
        while True:
            async with self._within(f"{prefix or 'everything'} was not listed", 0):
                item = await anext(items, None)
            if item is None:
                return
            yield item

    async def list_keys(self, prefix: str) -> Sequence[str]:
        async with self._within(f"{prefix or 'everything'} was not listed", _LONG_LISTING):
            return await list_keys(self.inner, prefix)

    async def free_bytes(self) -> int | None:
        async with self._within("the space was not told", 0):
            return await free_bytes(self.inner)

    async def delete(self, key: str) -> None:
        async with self._within(f"{key} was not deleted", 0):
            await self.inner.delete(key)

    @asynccontextmanager
    async def _within(self, missed: str, size: int) -> AsyncIterator[None]:
        seconds = self._seconds + size / SLOWEST
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DestinationUnreachable(f"{missed} within {seconds:.0f} s", self.name) from error
