"""A destination whose calls are made again where they failed with what may pass by itself, and nothing else (``destination.repeating``)."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from typing_extensions import Buffer

from snapferry.destination.contract import Destination, ObjectInfo, list_keys
from snapferry.destination.repeating import RetryBudget, RetryPolicy, repeat
from snapferry.errors import DestinationError
from snapferry.transport.wrapper import Wrapper

__all__ = ["RetryBudget", "RetryPolicy", "once", "with_retry"]

_Result = TypeVar("_Result")

_COMPARED = 1 << 20
"""Objects up to so many bytes are read back to tell our own lost create from another's. Larger ones are named by their content."""


def with_retry(destination: Destination, policy: RetryPolicy | None = None, budget: RetryBudget | None = None) -> Destination:
    """``destination``, with calls repeated that fail with a ``retryable`` error; all of them share ``budget``."""
    return _Retrying(destination, policy or RetryPolicy(), budget or RetryBudget())


def once(destination: Destination) -> Destination:
    """The same place, whose calls are made once: for who has somewhere else to go before a pause is over. Wrappers above the retries stay."""
    if isinstance(destination, _Retrying):
        return destination.inner
    if not isinstance(destination, Wrapper):
        return destination
    inner = once(destination.inner)
    if inner is destination.inner:
        return destination
    bare = copy.copy(destination)
    bare.inner = inner
    return bare


class _Retrying(Wrapper):
    def __init__(self, inner: Destination, policy: RetryPolicy, budget: RetryBudget) -> None:
        super().__init__(inner)
        self._policy = policy
        self._budget = budget

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
        return await repeat(call, self._policy, self._budget)
