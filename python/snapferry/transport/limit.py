"""Bounds the bytes a second that go to destinations and come from them: token buckets for each direction, and the wrappers that draw on them.

Each destination has a bucket of its own within that of all together. A call's bytes are paid before it is made, in pieces of a tenth of a
second, so that from the start on no more has passed than the rates allow. Pieces are dealt out in turns between destinations, and who waits
for its own bucket keeps nobody waiting; within one, long calls pay one after another, and short ones go between their pieces. What nobody knew before (a second attempt after an error, the length of an object) is owed, and paid by whoever comes next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

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
        within: a limit that what passes here counts for too. It is waited for last, so that nobody holds its turn who may not pass yet.
        clock, sleep: of time and asyncio; a test gives its own.
    """

    def __init__(
        self,
        rate: float | None = None,
        within: RateLimit | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.rate = rate
        self._within = within
        self._clock = clock
        self._sleep = sleep
        self._balance = 0.0
        self._counted = clock()
        self._turn = asyncio.Lock()
        self._lines: dict[str, asyncio.Lock] = {}

    @property
    def limited(self) -> bool:
        """Whether there is any limit, here or around."""
        return self.rate is not None or (self._within is not None and self._within.limited)

    async def spend(self, count: int, line: str = "") -> None:
        """Waits until ``count`` bytes may pass. A cancelled call has paid for some of them.

        Arguments:
            line: whose bytes they are; lines take turns.
        """
        if count > self._piece(count):
            async with self._lines.setdefault(line, asyncio.Lock()):
                await self._pay(count)
        else:
            await self._pay(count)

    def owe(self, count: int) -> None:
        """``count`` bytes have passed already."""
        if self.rate is not None:
            self._balance -= count
        if self._within is not None:
            self._within.owe(count)

    async def _pay(self, count: int) -> None:
        while count > 0 and self.limited:
            count -= await self._take(self._piece(count))

    async def _take(self, most: int) -> int:
        """Waits for a turn and for some of ``most`` bytes here, then for these around; returns how many."""
        granted = most
        if self.rate is not None:
            # A lock is handed on in the order in which it was asked for, so who wants more waits for the others' pieces.
            async with self._turn:
                granted = await self._wait(most)
        left = granted
        while left and self._within is not None:
            left -= await self._within._take(left)  # noqa: SLF001 - its own kind
        return granted

    async def _wait(self, most: int) -> int:
        """Until the balance pays for ``most`` or for what comes in the time of a piece, at the rate of each moment; returns what it pays for."""
        while self.rate is not None:
            now = self._clock()
            least = max(1, min(most, int(self.rate * PIECE_SECONDS)))
            self._balance = min(self._balance + self.rate * (now - self._counted), max(2 * PIECE_SECONDS * self.rate, least))
            self._counted = now
            if self._balance >= least:
                granted = min(most, int(self._balance))
                self._balance -= granted
                return granted
            await self._sleep(max(_SHORTEST_SLEEP, min((least - self._balance) / self.rate, _LONGEST_SLEEP)))
        return most

    def _piece(self, most: int) -> int:
        """How many of ``most`` bytes are asked for at once.

        The outermost limit says; within it one may have saved up a second piece while it waited for its turn, so that turns are of one size.
        """
        if self._within is not None:
            most = self._within._piece(most)  # noqa: SLF001
        seconds = PIECE_SECONDS if self._within is None or not self._within.limited else 2 * PIECE_SECONDS
        return most if self.rate is None else max(1, min(_LARGEST_PIECE, int(self.rate * seconds), most))


class Limits:
    """The limits of what is sent and of what is fetched, each at the same rate: a link has both directions for itself.

    Arguments:
        rate: bytes a second of all destinations together; None for no limit.
        rates: by destination, its own; those that are not named have none.
    """

    def __init__(self, rate: float | None = None, rates: Mapping[str, float | None] = MappingProxyType({})) -> None:
        self._sent, self._fetched = RateLimit(rate), RateLimit(rate)
        self._rates = dict(rates)
        self._own: dict[str, tuple[_Account, _Account]] = {}
        self._held_back = {name for name, own in self._rates.items() if own is not None}
        self._all_held_back = rate is not None

    @property
    def rate(self) -> float | None:
        """Bytes a second in each direction of all together, or None. May be set at any time."""
        return self._sent.rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        self._all_held_back |= rate is not None
        self._sent.rate = self._fetched.rate = rate

    def rate_of(self, name: str) -> float | None:
        """Bytes a second in each direction of one destination, beside what all together may."""
        return self._rates.get(name)

    def set_rate_of(self, name: str, rate: float | None) -> None:
        """Sets it, for what is under way too."""
        self._rates[name] = rate
        if rate is not None:
            self._held_back.add(name)
        for account in self._own.get(name, ()):
            account.limit.rate = rate

    def held_back(self, name: str) -> bool:
        """Whether a limit ever counted for that destination: then its speed says nothing of the destination."""
        return self._all_held_back or name in self._held_back

    def limited(self, destination: Destination) -> Destination:
        """``destination``, whose calls wait for their bytes. Stands above whatever tries again or measures."""
        return _Limited(destination, *self._accounts(destination.name))

    def counted(self, destination: Destination) -> Destination:
        """``destination``, whose calls are noted as made. Stands below whatever tries again, so that a second attempt is paid for too."""
        return _Counted(destination, *self._accounts(destination.name))

    def _accounts(self, name: str) -> tuple[_Account, _Account]:
        if name not in self._own:
            rate = self._rates.get(name)
            self._own[name] = _Account(RateLimit(rate, self._sent)), _Account(RateLimit(rate, self._fetched))
        return self._own[name]


class _Account:
    """What was paid for at one destination in one direction, and has not passed yet."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._paid = 0

    async def pay(self, count: int) -> None:
        if self.limit.limited:
            await self.limit.spend(count)
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
        await self._sent.pay(_size(data))
        return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        await self._fetched.pay(1)  # Nobody knows how long it is; a debt is waited for.
        return await self.inner.read(key, limit)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        await self._fetched.pay(buffer.nbytes)
        await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        await self._fetched.pay(length)
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
