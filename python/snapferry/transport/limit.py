"""Bounds the bytes a second that go to destinations and come from them: a token bucket for each direction, and the wrappers that draw on it.

A call's bytes are paid before it is made, in pieces of a tenth of a second, so that from the start on no more has passed than the rate
allows. Pieces are dealt out in turns between destinations; within one, long calls pay one after another, and short ones go between their
pieces. What nobody knew before (a second attempt after an error, the length of an object) is owed, and paid by whoever comes next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from typing_extensions import Buffer

from snapferry.destination.contract import Destination
from snapferry.transport.wrapper import Wrapper

PIECE_SECONDS = 0.1
_LARGEST_PIECE = 1 << 20
_SHORTEST_SLEEP, _LONGEST_SLEEP = 0.001, 0.2
"""A new rate counts after the longest."""


class RateLimit:
    """A token bucket, empty at first. For one event loop.

    Invariant: in any ``s`` seconds at most ``rate * (s + 2 * PIECE_SECONDS)`` bytes are granted by ``spend``.

    Arguments:
        rate: bytes a second; None for no limit. May be set at any time.
        clock, sleep: of time and asyncio; a test gives its own.
    """

    def __init__(
        self,
        rate: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._balance = 0.0
        self._counted = clock()
        self._turn = asyncio.Lock()
        self._lines: dict[str, asyncio.Lock] = {}

    async def spend(self, count: int, line: str = "") -> None:
        """Waits until ``count`` bytes may pass. A cancelled call has paid for some of them.

        Arguments:
            line: whose bytes they are; lines take turns.
        """
        if self.rate is not None and count > self._piece(self.rate):
            async with self._lines.setdefault(line, asyncio.Lock()):
                await self._pay(count)
        else:
            await self._pay(count)

    def owe(self, count: int) -> None:
        """``count`` bytes have passed already."""
        if self.rate is not None:
            self._balance -= count

    async def _pay(self, count: int) -> None:
        while count > 0 and self.rate is not None:
            # A lock is handed on in the order in which it was asked for, so who wants more waits for the others' pieces.
            async with self._turn:
                count -= await self._take(count)

    async def _take(self, most: int) -> int:
        """Waits for one piece of ``most`` bytes, at the rate of each moment."""
        while self.rate is not None:
            now = self._clock()
            piece = min(most, self._piece(self.rate))
            self._balance = min(self._balance + self.rate * (now - self._counted), max(2 * PIECE_SECONDS * self.rate, piece))
            self._counted = now
            if self._balance >= piece:
                self._balance -= piece
                return piece
            await self._sleep(max(_SHORTEST_SLEEP, min((piece - self._balance) / self.rate, _LONGEST_SLEEP)))
        return most

    @staticmethod
    def _piece(rate: float) -> int:
        return max(1, min(_LARGEST_PIECE, int(rate * PIECE_SECONDS)))


class Limits:
    """The limits of what is sent and of what is fetched, each at the same rate: a link has both directions for itself.

    Arguments:
        rate: bytes a second; None for no limit. May be set at any time.
    """

    def __init__(self, rate: float | None = None) -> None:
        self._sent = _Account(RateLimit(rate))
        self._fetched = _Account(RateLimit(rate))

    @property
    def rate(self) -> float | None:
        """Bytes a second in each direction, or None."""
        return self._sent.limit.rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        self._sent.limit.rate = self._fetched.limit.rate = rate

    def limited(self, destination: Destination) -> Destination:
        """``destination``, whose calls wait for their bytes. Stands above whatever tries again or measures."""
        return _Limited(destination, self._sent, self._fetched)

    def counted(self, destination: Destination) -> Destination:
        """``destination``, whose calls are noted as made. Stands below whatever tries again, so that a second attempt is paid for too."""
        return _Counted(destination, self._sent, self._fetched)


class _Account:
    """What was paid for, and has not passed yet."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._paid = 0

    async def pay(self, count: int, line: str) -> None:
        if self.limit.rate is not None:
            await self.limit.spend(count, line)
            self._paid += count

    def pass_on(self, count: int) -> None:
        self._paid -= count
        if self._paid < 0:
            self.limit.owe(-self._paid)
            self._paid = 0


class _Wrapper(Wrapper):
    def __init__(self, inner: Destination, sent: _Account, fetched: _Account) -> None:
        super().__init__(inner)
        self._sent = sent
        self._fetched = fetched


class _Limited(_Wrapper):
    async def create(self, key: str, data: Buffer) -> bool:
        await self._sent.pay(_size(data), self.name)
        return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        await self._fetched.pay(1, self.name)  # Nobody knows how long it is; a debt is waited for.
        return await self.inner.read(key, limit)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        await self._fetched.pay(buffer.nbytes, self.name)
        await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        await self._fetched.pay(length, self.name)
        return await self.inner.read_tail(key, length)


class _Counted(_Wrapper):
    async def create(self, key: str, data: Buffer) -> bool:
        self._sent.pass_on(_size(data))
        return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        data = await self.inner.read(key, limit)
        self._fetched.pass_on(len(data))
        return data

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        self._fetched.pass_on(buffer.nbytes)
        await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        self._fetched.pass_on(length)
        return await self.inner.read_tail(key, length)


def _size(data: Buffer) -> int:
    with memoryview(data) as view:
        return view.nbytes
