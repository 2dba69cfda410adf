"""A part of a byte budget with a limit of its own, so that one of several who draw from it cannot take what is meant for the others."""

from __future__ import annotations

from collections.abc import Callable

from snapferry.transport.budget import ByteBudget


class BudgetShare(ByteBudget):
    """At most ``limit`` bytes of ``whole``. Whoever waits here waits for this share first, and only then for the whole.

    As long as the limits of all shares together are within the whole, and nobody else draws from it, no share waits for another.
    """

    def __init__(self, whole: ByteBudget, limit: int) -> None:
        super().__init__(limit)
        self._whole = whole

    @property
    def short(self) -> bool:
        """Whether somebody waits, here or for the whole."""
        return super().short or self._whole.short

    def add_keeper(self, give_back: Callable[[], object]) -> None:
        """Asked also when somebody else waits for the whole."""
        super().add_keeper(give_back)
        self._whole.add_keeper(give_back)

    def remove_keeper(self, give_back: Callable[[], object]) -> None:
        """Ends what ``add_keeper`` began."""
        super().remove_keeper(give_back)
        self._whole.remove_keeper(give_back)

    async def acquire(self, minimum: int, maximum: int | None = None) -> int:
        """See ``ByteBudget.acquire``; bounded by the limit."""
        granted = await super().acquire(minimum, maximum)
        try:
            taken = await self._whole.acquire(minimum, granted)
        except BaseException:
            super().release(granted)
            raise
        super().release(granted - taken)
        return taken

    def try_acquire(self, count: int) -> bool:
        """See ``ByteBudget.try_acquire``; of the share and the whole."""
        if not super().try_acquire(count):
            return False
        if not self._whole.try_acquire(count):
            super().release(count)
            return False
        return True

    def release(self, count: int) -> None:
        """Gives ``count`` bytes back to the share and the whole."""
        super().release(count)
        self._whole.release(count)
