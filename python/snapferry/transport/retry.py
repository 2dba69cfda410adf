"""Tries again what may pass by itself, and nothing else.

Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), bounded in number and in time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import Buffer

from snapferry.destination.contract import Destination, ObjectInfo, list_keys
from snapferry.errors import DestinationError
from snapferry.transport.wrapper import Wrapper

_Result = TypeVar("_Result")

_COMPARED = 1 << 20
"""Objects up to so many bytes are read back to tell our own lost create from another's. Larger ones are named by their content."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long.

    Attributes:
        attempts: at most so many calls, the first included.
        total: no call is begun later than so many seconds after the first.
        first, longest: upper bounds of the first pause and of every pause, in seconds.
        sleep, uniform, clock: of asyncio, random (between 0 and 1) and time; a test gives its own.
    """

    attempts: int = 4
    total: float = 10.0
    first: float = 0.25
    longest: float = 4.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def pause(self, failures: int) -> float:
        """The seconds to wait after so many failures: evenly between 0 and a bound that doubles."""
        return self.uniform() * min(self.longest, self.first * 2.0 ** (failures - 1))


def with_retry(destination: Destination, policy: RetryPolicy | None = None) -> Destination:
    """``destination``, with calls repeated that fail with a ``retryable`` error."""
    return _Retrying(destination, policy or RetryPolicy())


class _Retrying(Wrapper):
    def __init__(self, inner: Destination, policy: RetryPolicy) -> None:
        super().__init__(inner)
        self._policy = policy

    async def create(self, key: str, data: Buffer) -> bool:
        failed = False

        async def once() -> bool:
            nonlocal failed
            try:
                created = await self.inner.create(key, data)
                if created or not failed:
                    return created
                return await self._holds(key, data)
            except DestinationError:
                failed = True
                raise

        return await self._repeat(once)

    async def read(self, key: str, limit: int) -> bytes:
        return await self._repeat(lambda: self.inner.read(key, limit))

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        await self._repeat(lambda: self.inner.read_into(key, offset, buffer))

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        return await self._repeat(lambda: self.inner.read_tail(key, length))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Repeated only until the first object came: what was yielded cannot be taken back."""
        stop = object()

        async def begin() -> tuple[AsyncIterator[ObjectInfo], ObjectInfo | object]:
            iterator = self.inner.list(prefix)
            return iterator, await anext(iterator, stop)

        iterator, item = await self._repeat(begin)
        if isinstance(item, ObjectInfo):
            yield item
            async for item in iterator:
                yield item

    async def list_keys(self, prefix: str) -> Sequence[str]:
        return await self._repeat(lambda: list_keys(self.inner, prefix))

    async def delete(self, key: str) -> None:
        await self._repeat(lambda: self.inner.delete(key))

    async def _holds(self, key: str, data: Buffer) -> bool:
        """After an attempt that failed, the key is taken: by that attempt, whose reply was lost, if the bytes are the same."""
        with memoryview(data).cast("B") as view:
            if view.nbytes > _COMPARED:
                return False
            return await self.inner.read(key, _COMPARED) == view

    async def _repeat(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        policy = self._policy
        begun = policy.clock()
        failures = 0
        while True:
            try:
                return await call()
            except DestinationError as error:
                failures += 1
                pause = policy.pause(failures)
                if not error.retryable or failures >= policy.attempts or policy.clock() - begun + pause > policy.total:
                    raise
            await policy.sleep(pause)
