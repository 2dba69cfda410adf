"""Destinations at the other end of a slow or moody line. Each wraps another; time is the event loop's, so that it can be a virtual one.

Where the bytes should really cross a socket there are proxies (``http_faults``); these are for what is decided above any socket.
"""

from __future__ import annotations

import asyncio

from snapferry.destination.contract import Destination
from snapferry.errors import DestinationUnreachable, ObjectDamaged, ObjectNotFound
from snapferry.testing.faults import Before, Touched, everything
from snapferry.transport.wrapper import Wrapper

_PIECE = 256 << 10


class SharesLine(Wrapper):
    """Reads of ranges come over one line of ``rate`` bytes a second that all of them share fairly, each ``latency`` seconds late.

    Attributes:
        rate: may be changed at any time.
        passed: bytes that were read. most: the most reads that were ever under way at once.
    """

    def __init__(self, inner: Destination, rate: float, latency: float = 0.0) -> None:
        super().__init__(inner)
        self.rate = rate
        self.latency = latency
        self.passed = 0
        self.most = 0
        self._under_way = 0
        self._free = 0.0

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """As late as the line makes it; a read that is cancelled takes no more of it."""
        loop = asyncio.get_running_loop()
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            await asyncio.sleep(self.latency)
            left = buffer.nbytes
            while left:
                piece = min(left, _PIECE)
                # What a timer is late by is made good, up to some milliseconds.
                self._free = max(self._free, loop.time() - 0.005) + piece / self.rate
                await asyncio.sleep(max(0.0, self._free - loop.time()))
                left -= piece
            await self.inner.read_into(key, offset, buffer)
            self.passed += buffer.nbytes
        finally:
            self._under_way -= 1


class _EveryNth(Wrapper):
    def __init__(self, inner: Destination, nth: int) -> None:
        super().__init__(inner)
        self._nth = nth
        self._count = 0

    def _is_one(self) -> bool:
        """Counts a read; whether it is one of those that go wrong."""
        self._count += 1
        return self._count % self._nth == 0


class StallsEveryNth(_EveryNth):
    """Every ``nth`` read of a range waits for ``seconds`` before anything comes. ``stalled`` counts them."""

    def __init__(self, inner: Destination, nth: int, seconds: float) -> None:
        super().__init__(inner, nth)
        self.stalled = 0
        self._seconds = seconds

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Late, or not."""
        if self._is_one():
            self.stalled += 1
            await asyncio.sleep(self._seconds)
        await self.inner.read_into(key, offset, buffer)


class FlipsBitInEveryNth(_EveryNth):
    """In every ``nth`` range that is read of the keys touched, one bit in the middle is wrong. ``flipped`` counts them."""

    def __init__(self, inner: Destination, nth: int, touches: Touched = everything) -> None:
        super().__init__(inner, nth)
        self.flipped = 0
        self._touches = touches

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """One bit off, or not."""
        await self.inner.read_into(key, offset, buffer)
        if self._touches(key) and self._is_one():
            self.flipped += 1
            buffer[buffer.nbytes // 2] ^= 0x10


class EndsEarlyEveryNth(_EveryNth):
    """Every ``nth`` range that is read breaks off half-way, with what came in the buffer. ``cut`` counts them."""

    def __init__(self, inner: Destination, nth: int) -> None:
        super().__init__(inner, nth)
        self.cut = 0

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Whole, or half of it."""
        if self._is_one():
            self.cut += 1
            await self.inner.read_into(key, offset, buffer[: buffer.nbytes // 2])
            raise ObjectDamaged(f"{key}: the body ended early", self.name)
        await self.inner.read_into(key, offset, buffer)


class Lacks(Before):
    """The keys touched are not there when they are read. ``refused`` counts how often."""

    def __init__(self, inner: Destination, touches: Touched) -> None:
        super().__init__(inner)
        self.refused = 0
        self._touches = touches

    async def before(self, operation: str, key: str) -> None:
        """Not found."""
        if operation in ("read", "read_into", "read_tail") and self._touches(key):
            self.refused += 1
            raise ObjectNotFound(f"{key} does not exist", self.name)


class ComesAndGoes(Before):
    """Unreachable while ``away`` is set. ``refused`` counts the calls that met it so, ``served`` the others."""

    def __init__(self, inner: Destination, *, away: bool = False) -> None:
        super().__init__(inner)
        self.away = away
        self.refused = 0
        self.served = 0

    async def before(self, operation: str, key: str) -> None:
        """Raises while it is away."""
        if self.away:
            self.refused += 1
            raise DestinationUnreachable("connection refused", self.name)
        self.served += 1


class HangsDeaf(Wrapper):
    """Reads of ranges, but for the first ``after``, wait until ``released`` is set, be they cancelled or not, and then write into their buffer:
    as a thread does that is in a system call. ``deaf`` counts the cancellations that were not heard.
    """

    def __init__(self, inner: Destination, after: int = 0) -> None:
        super().__init__(inner)
        self._left = after
        self.released = asyncio.Event()
        self.deaf = 0

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """As it should be, or late and then wrong."""
        self._left -= 1
        if self._left >= 0:
            await self.inner.read_into(key, offset, buffer)
            return
        cancelled: asyncio.CancelledError | None = None
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError as error:
                self.deaf += 1
                cancelled = error
        buffer[:] = bytes(buffer.nbytes)
        if cancelled is not None:
            raise cancelled
