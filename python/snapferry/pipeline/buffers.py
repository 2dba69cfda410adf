"""A few large buffers, used again and again: freshly touched memory costs several times what the work in it does."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from types import TracebackType
from typing import Self

from snapferry.transport import ByteBudget


class BufferPool:
    """Up to ``most`` buffers of ``size`` bytes, and ``spares`` more for who can do without, each reserved in ``budget`` from its first use until the pool is left, or until it is idle
    and somebody waits for the budget.

    A context: whoever leaves it must have released every buffer.
    """

    def __init__(self, budget: ByteBudget, size: int, most: int, spares: int = 0) -> None:
        self.size = size
        self._budget = budget
        self._gate = asyncio.Semaphore(most)
        self._spares = spares
        self._free: list[memoryview] = []
        self._waiting: list[asyncio.Future[memoryview]] = []
        self._reserved = 0
        self._used = 0

    async def __aenter__(self) -> Self:
        """Makes nothing yet."""
        self._budget.add_keeper(self._give_back)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Gives the memory and its reservation back."""
        self._budget.remove_keeper(self._give_back)
        self._free.clear()
        self._budget.release(self._reserved)
        self._reserved = 0

    async def acquire(self) -> memoryview:
        """A writable buffer of ``size`` bytes, holding anything; waits until one is free."""
        await self._gate.acquire()
        self._used += 1
        try:
            return self._free.pop() if self._free else await self._another()
        except BaseException:
            self._used -= 1
            self._gate.release()
            raise

    def release(self, buffer: memoryview) -> None:
        """Takes a buffer back; nothing may use it any more."""
        self._gate.release()
        self._take_back(buffer)

    def spare(self) -> memoryview | None:
        """As ``acquire``, for ``release_spare``; None if it would have to wait."""
        if not self._spares:
            return None
        if not self._free:
            if not self._budget.try_acquire(self.size):
                return None
            self._reserved += self.size
            self._free.append(self._make())
        self._spares -= 1
        self._used += 1
        return self._free.pop()

    def release_spare(self, buffer: memoryview) -> None:
        """Takes back what ``spare`` gave; nothing may use it any more."""
        self._spares += 1
        self._take_back(buffer)

    def _take_back(self, buffer: memoryview) -> None:
        self._hand_on(buffer)
        self._used -= 1
        if self._budget.short:
            self._give_back()

    def _give_back(self) -> None:
        """Lets all buffers go if none is in use: a reader that is open and idle must not keep an export waiting."""
        if not self._used and self._free:
            self._free.clear()
            reserved, self._reserved = self._reserved, 0
            self._budget.release(reserved)

    async def _another(self) -> memoryview:
        """A new buffer, or one that is released before the budget has room for a new one: what has room may wait for this very pool."""
        given: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        asking = asyncio.create_task(self._budget.acquire(self.size))
        both: set[asyncio.Future[memoryview] | asyncio.Future[int]] = {given, asking}
        self._waiting.append(given)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._let_go(asking)
            if given.done():
                self._hand_on(given.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(given)
        if given.done():
            self._let_go(asking)
            return given.result()
        self._reserved += asking.result()
        return self._make()

    def _hand_on(self, buffer: memoryview) -> None:
        if self._waiting:
            self._waiting.pop(0).set_result(buffer)
        else:
            self._free.append(buffer)

    def _let_go(self, asking: asyncio.Task[int]) -> None:
        """Of what was asked of the budget and is not needed: a grant that came already is given back, else none comes."""
        if not asking.done():
            asking.cancel()
        elif not asking.cancelled() and asking.exception() is None:
            self._budget.release(asking.result())

    def _make(self) -> memoryview:
        memory = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError, AttributeError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memoryview(memory)
