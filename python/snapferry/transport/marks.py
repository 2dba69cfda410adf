"""Which objects of a stream are not acknowledged yet, and who waits until all below a number are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Waiter:
    mark: int
    reached: asyncio.Future[None]


class Marks:
    """The numbers of the objects of one destination, which are begun in order and acknowledged in any. For one event loop."""

    def __init__(self) -> None:
        self._unfinished: dict[int, None] = {}
        self._waiters: list[_Waiter] = []

    @property
    def all_reached(self) -> bool:
        """Whether nothing is unfinished."""
        return not self._unfinished

    @property
    def first_unfinished(self) -> float:
        """The lowest number that is not acknowledged; infinite if all are."""
        return next(iter(self._unfinished), float("inf"))

    def begin(self, number: int) -> None:
        """One more, above all before."""
        self._unfinished[number] = None

    def finish(self, number: int) -> None:
        """It is acknowledged; ``wake`` tells those who wait for it."""
        self._unfinished.pop(number, None)

    async def reached(self, mark: int) -> None:
        """Waits until all below ``mark`` are acknowledged, or ``wake_all`` is called."""
        if self.first_unfinished < mark:
            waiter = _Waiter(mark, asyncio.get_running_loop().create_future())
            self._waiters.append(waiter)
            await waiter.reached

    def wake(self) -> None:
        """Wakes those whose mark is reached."""
        first = self.first_unfinished
        for waiter in [waiter for waiter in self._waiters if waiter.mark <= first]:
            self._waiters.remove(waiter)
            if not waiter.reached.done():
                waiter.reached.set_result(None)

    def wake_all(self) -> None:
        """Wakes everybody: nothing more will be acknowledged."""
        for waiter in self._waiters:
            if not waiter.reached.done():
                waiter.reached.set_result(None)
