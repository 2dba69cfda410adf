"""A few large buffers, used again and again: freshly touched memory costs several times what the work in it does."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from types import TracebackType
from typing import Self

from snapferry.transport import ByteBudget


class BufferPool:
    """Up to ``most`` buffers of ``size`` bytes, each reserved in ``budget`` from its first use until the pool is left.

    A context: whoever leaves it must have released every buffer.
    """

    def __init__(self, budget: ByteBudget, size: int, most: int) -> None:
        self.size = size
        self._budget = budget
        self._gate = asyncio.Semaphore(most)
        self._free: list[memoryview] = []
        self._reserved = 0

    async def __aenter__(self) -> Self:
        """Makes nothing yet."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Gives the memory and its reservation back."""
        self._free.clear()
        self._budget.release(self._reserved)
        self._reserved = 0

    async def acquire(self) -> memoryview:
        """A writable buffer of ``size`` bytes, holding anything; waits until one is free."""
        await self._gate.acquire()
        try:
            if self._free:
                return self._free.pop()
            await self._budget.acquire(self.size)
        except BaseException:
            self._gate.release()
            raise
        self._reserved += self.size
        memory = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError, AttributeError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(memory)

    def release(self, buffer: memoryview) -> None:
        """Takes a buffer back; nothing may use it any more."""
        self._free.append(buffer)
        self._gate.release()
