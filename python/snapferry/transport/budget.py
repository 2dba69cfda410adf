"""One budget of bytes for everything an engine holds in flight. It counts; it allocates nothing. For one event loop.

Invariant: ``available`` plus what was granted and not released is ``total``. Waiters are served in the order they came, so that one who
asks for much is never starved by many who ask for little. Before somebody waits, those who keep bytes that they do not use at the moment
are asked to give them back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from snapferry.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A look at a budget; all in bytes but ``waiting``, which counts those who wait."""

    total: int
    available: int
    peak: int
    waiting: int


@dataclass(slots=True, eq=False)
class _Waiter:
    minimum: int
    maximum: int
    granted: asyncio.Future[int]


class ByteBudget:
    """``total`` bytes to be reserved and released.

    Raises:
        ConfigurationError: ``total`` is not positive.
    """

    def __init__(self, total: int) -> None:
        if total <= 0:
            raise ConfigurationError(f"a memory budget of {total} bytes is too small")
        self._total = total
        self._available = total
        self._peak = 0
        self._waiters: deque[_Waiter] = deque()
        self._keepers: dict[Callable[[], object], None] = {}

    @property
    def total(self) -> int:
        """The whole budget, in bytes."""
        return self._total

    @property
    def available(self) -> int:
        """Bytes free now."""
        return self._available

    @property
    def peak(self) -> int:
        """The most bytes that were ever reserved at once."""
        return self._peak

    @property
    def short(self) -> bool:
        """Whether somebody waits."""
        return any(not waiter.granted.cancelled() for waiter in self._waiters)

    def add_keeper(self, give_back: Callable[[], object]) -> None:
        """From now on ``give_back`` is called before anybody waits: it releases what was reserved and is not in use."""
        self._keepers[give_back] = None

    def remove_keeper(self, give_back: Callable[[], object]) -> None:
        """Ends what ``add_keeper`` began; one that is not there is no error."""
        self._keepers.pop(give_back, None)

    def statistics(self) -> BudgetStatistics:
        """All figures at once."""
        return BudgetStatistics(self._total, self._available, self._peak, sum(not waiter.granted.cancelled() for waiter in self._waiters))

    async def acquire(self, minimum: int, maximum: int | None = None) -> int:
        """Waits until ``minimum`` bytes are free and all who came before are served, then reserves up to ``maximum``.

        Arguments:
            minimum: bytes, at most the whole budget.
            maximum: bytes, at least ``minimum``, which it is unless given; may be more than the whole budget.

        Returns:
            The bytes reserved. A cancelled call has reserved nothing.

        Raises:
            ConfigurationError: ``minimum`` is more than the whole budget, and would be waited for forever.
        """
        maximum = minimum if maximum is None else maximum
        if minimum < 0 or maximum < minimum:
            raise ValueError(f"cannot reserve between {minimum} and {maximum} bytes")
        if minimum > self._total:
            raise ConfigurationError(f"the memory budget of {self._total} bytes is too small: {minimum} are needed at once")
        if minimum > self._available:
            for give_back in tuple(self._keepers):
                give_back()
        if not self._waiters and minimum <= self._available:
            return self._grant(minimum, maximum)
        waiter = _Waiter(minimum, maximum, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.cancelled():
                # It gives up its place; who came after may be served now.
                self._serve()
            else:
                # Granted and cancelled in the same turn of the loop: nobody will hear of the grant.
                self._give_back(waiter.granted.result())
            raise

    def try_acquire(self, count: int) -> bool:
        """Reserves ``count`` bytes if that needs no waiting, and nobody waits."""
        if self.short or count > self._available:
            return False
        self._grant(count, count)
        return True

    def release(self, count: int) -> None:
        """Gives ``count`` bytes back. ``ValueError`` if that is more than was reserved."""
        if count < 0 or self._available + count > self._total:
            raise ValueError(f"{count} bytes released, {self._total - self._available} are reserved")
        self._give_back(count)

    def _give_back(self, count: int) -> None:
        """To this budget alone, whatever else ``release`` means where it is a part of another one."""
        self._available += count
        self._serve()

    def _serve(self) -> None:
        while self._waiters:
            first = self._waiters[0]
            if not first.granted.cancelled():
                if first.minimum > self._available:
                    return
                first.granted.set_result(self._grant(first.minimum, first.maximum))
            self._waiters.popleft()

    def _grant(self, minimum: int, maximum: int) -> int:
        count = max(minimum, min(maximum, self._available))
        self._available -= count
        self._peak = max(self._peak, self._total - self._available)
        return count
