"""Destinations that fail as real ones do. Each wraps another, and is named by its fault.

``operation`` is the name of a method of ``Destination``, or ``"any"``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Literal

from typing_extensions import Buffer

from snapferry.destination.contract import Destination, ObjectInfo
from snapferry.errors import DestinationDenied, DestinationFull, DestinationUnreachable, ObjectDamaged
from snapferry.transport.wrapper import Wrapper

Operation = Literal["create", "read", "read_into", "read_tail", "list", "delete", "any"]

Touched = Callable[[str], bool]
"""Which keys a fault touches."""


def everything(key: str) -> bool:
    """Touches every key."""
    del key
    return True


class Before(Wrapper):
    """Calls ``before`` ahead of every operation."""

    async def before(self, operation: str, key: str) -> None:
        raise NotImplementedError

    async def create(self, key: str, data: Buffer) -> bool:
        await self.before("create", key)
        return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        await self.before("read", key)
        return await self.inner.read(key, limit)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        await self.before("read_into", key)
        await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        await self.before("read_tail", key)
        return await self.inner.read_tail(key, length)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        await self.before("list", prefix)
        async for item in self.inner.list(prefix):
            yield item

    async def delete(self, key: str) -> None:
        await self.before("delete", key)
        await self.inner.delete(key)


class FailsNth(Before):
    """The ``nth`` call (counted from 1) of ``operation``, and the ``times - 1`` after it, raise ``error()`` and do nothing.

    Attributes:
        calls: how many there were of that operation. fired: how many of them failed; a loop over ``nth`` ends when it stays 0.
    """

    def __init__(self, inner: Destination, operation: Operation, nth: int, error: Callable[[], Exception], *, times: int = 1) -> None:
        super().__init__(inner)
        self.calls = 0
        self.fired = 0
        self._operation = operation
        self._failing = range(nth, nth + times)
        self._raised = error

    async def before(self, operation: str, key: str) -> None:
        """Counts, and fails those it is told to."""
        if self._operation not in (operation, "any"):
            return
        self.calls += 1
        if self.calls in self._failing:
            self.fired += 1
            raise self._raised()


class Hangs(Before):
    """Calls of ``operation`` for the keys touched wait until ``released`` is set; ``hanging`` is set when the first one waits."""

    def __init__(self, inner: Destination, operation: Operation = "any", touches: Touched = everything) -> None:
        super().__init__(inner)
        self.hanging = asyncio.Event()
        self.released = asyncio.Event()
        self._operation = operation
        self._touches = touches

    async def before(self, operation: str, key: str) -> None:
        """Waits, if this is one that does."""
        if self._operation in (operation, "any") and self._touches(key):
            self.hanging.set()
            await self.released.wait()


class RefusesDeletes(Wrapper):
    """What is there stays: deletes are denied, as an append-only store denies them. Creates never replace anything as it is."""

    async def delete(self, key: str) -> None:
        """Denied."""
        raise DestinationDenied(f"{key} may not be deleted: this store is append-only", self.name)


class StopsAfter(Before):
    """The process dies after ``left`` operations at all destinations that share the count: all that follow raise ``error()``."""

    def __init__(self, inner: Destination, left: list[int], error: Callable[[], BaseException]) -> None:
        super().__init__(inner)
        self._left = left
        self._raised = error

    async def before(self, operation: str, key: str) -> None:
        """Counts down; at nothing left nothing is done any more."""
        if self._left[0] <= 0:
            raise self._raised()
        self._left[0] -= 1


class Trickles(Wrapper):
    """Everything passes, what lies under the keys touched at ``rate`` bytes a second in each direction, by ``sleep``."""

    def __init__(
        self, inner: Destination, rate: float, sleep: Callable[[float], object] = asyncio.sleep, touches: Touched = everything
    ) -> None:
        super().__init__(inner)
        self._rate = rate
        self._sleep = sleep
        self._touches = touches

    async def create(self, key: str, data: Buffer) -> bool:
        """Late by the size of ``data``."""
        await self._pass(key, memoryview(data).nbytes)
        return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        """Late by the size of the object."""
        data = await self.inner.read(key, limit)
        await self._pass(key, len(data))
        return data

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Late by the size of the buffer."""
        await self._pass(key, buffer.nbytes)
        await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """Late by the size of the tail."""
        tail, size = await self.inner.read_tail(key, length)
        await self._pass(key, len(tail))
        return tail, size

    async def _pass(self, key: str, size: int) -> None:
        if not self._touches(key):
            return
        slept = self._sleep(size / self._rate)
        if asyncio.iscoroutine(slept):
            await slept


class Vanishes(Before):
    """Unreachable for good once ``after`` bytes have been asked for or sent, in the middle of the operation that crosses the mark."""

    def __init__(self, inner: Destination, after: int) -> None:
        super().__init__(inner)
        self._left = after

    @property
    def gone(self) -> bool:
        """Whether it has vanished."""
        return self._left < 0

    async def before(self, operation: str, key: str) -> None:
        """Raises if it is gone."""
        del operation, key
        self._use(0)

    async def create(self, key: str, data: Buffer) -> bool:
        """Uses up the bytes of ``data``."""
        self._use(memoryview(data).nbytes)
        return await self.inner.create(key, data)

    async def read(self, key: str, limit: int) -> bytes:
        """Uses up the bytes of the object."""
        self._use(0)
        data = await self.inner.read(key, limit)
        self._use(len(data))
        return data

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Uses up the bytes of the buffer."""
        self._use(buffer.nbytes)
        await self.inner.read_into(key, offset, buffer)

    def _use(self, count: int) -> None:
        if self._left >= 0:
            self._left -= count
        if self._left < 0:
            raise DestinationUnreachable("it vanished", self.name)


class FullAfter(Wrapper):
    """Creates fail with ``DestinationFull`` once ``capacity`` bytes are stored."""

    def __init__(self, inner: Destination, capacity: int) -> None:
        super().__init__(inner)
        self._left = capacity

    async def create(self, key: str, data: Buffer) -> bool:
        """Takes what fits."""
        size = memoryview(data).nbytes
        if size > self._left:
            self._left = 0
            raise DestinationFull("no space is left", self.name)
        created = await self.inner.create(key, data)
        self._left -= size if created else 0
        return created


class LosesReply(Wrapper):
    """The first ``times`` creates store the object and then raise ``DestinationUnreachable``."""

    def __init__(self, inner: Destination, times: int = 1) -> None:
        super().__init__(inner)
        self.lost = 0
        self._times = times

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores, and may not say so."""
        created = await self.inner.create(key, data)
        if self.lost < self._times:
            self.lost += 1
            raise DestinationUnreachable("the reply was lost", self.name)
        return created


class LosesFirstReplies(Wrapper):
    """The first create of each object stores it and then raises ``DestinationUnreachable``."""

    def __init__(self, inner: Destination) -> None:
        super().__init__(inner)
        self._lost: set[str] = set()

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores, and says so from the second time on."""
        double = LosesReply(self.inner, times=0 if key in self._lost else 1)
        self._lost.add(key)
        return await double.create(key, data)


class _Alters(Wrapper):
    """What is read is what ``altered`` makes of the object, of the keys touched."""

    def __init__(self, inner: Destination, touches: Touched = everything) -> None:
        super().__init__(inner)
        self._touches = touches

    def altered(self, data: bytes) -> bytes:
        raise NotImplementedError

    async def read(self, key: str, limit: int) -> bytes:
        if not self._touches(key):
            return await self.inner.read(key, limit)
        data = await self._whole(key)
        if len(data) > limit:
            raise ObjectDamaged(f"{key} has {len(data)} bytes where at most {limit} are expected", self.name)
        return data

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        if not self._touches(key):
            await self.inner.read_into(key, offset, buffer)
            return
        data = (await self._whole(key))[offset : offset + buffer.nbytes]
        if len(data) < buffer.nbytes:
            raise ObjectDamaged(f"{key} ends before {offset + buffer.nbytes}", self.name)
        buffer.cast("B")[:] = data

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        if not self._touches(key):
            return await self.inner.read_tail(key, length)
        data = await self._whole(key)
        return data[max(0, len(data) - length) :], len(data)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for item in self.inner.list(prefix):
            yield ObjectInfo(item.key, len(await self._whole(item.key))) if self._touches(item.key) else item

    async def _whole(self, key: str) -> bytes:
        _, size = await self.inner.read_tail(key, 0)
        return self.altered(await self.inner.read(key, size))


class Truncates(_Alters):
    """Objects end after ``length`` bytes."""

    def __init__(self, inner: Destination, length: int, touches: Touched = everything) -> None:
        super().__init__(inner, touches)
        self._length = length

    def altered(self, data: bytes) -> bytes:
        """The beginning."""
        return data[: self._length]


class FlipsByte(_Alters):
    """The byte at ``position`` of each object (from the end if negative; modulo its length) reads as its complement."""

    def __init__(self, inner: Destination, position: int, touches: Touched = everything) -> None:
        super().__init__(inner, touches)
        self._position = position

    def altered(self, data: bytes) -> bytes:
        """One byte wrong."""
        if not data:
            return data
        wrong = bytearray(data)
        wrong[self._position % len(data)] ^= 0xFF
        return bytes(wrong)
