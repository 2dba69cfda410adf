"""Who of several exports may begin, and with how much of the byte budget.

An export takes its share whole before it holds anything, so that none ever waits half-way for another who waits for it; and those that
are told how many run side by side never use more than their share, so that one whose destination hangs takes nothing from the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from snapferry.pipeline.sizing import PACK_SIZE, ExportSizing, export_sizing, fair_share, smallest_share
from snapferry.transport import BudgetShare, ByteBudget


@dataclass(frozen=True, slots=True)
class Share:
    """One export's part of the budget: how it uses it, and what it draws from."""

    sizing: ExportSizing
    budget: ByteBudget


class Admission:
    """Divides ``budget`` among exports, first come, first served.

    Arguments:
        processors: of the machine.
    """

    def __init__(self, budget: ByteBudget, processors: int) -> None:
        self._budget = budget
        self._processors = processors
        self._shares = ByteBudget(budget.total)
        self._exports = 0

    @asynccontextmanager
    async def share(self, block_size: int, side_by_side: int | None = None, largest_pack: int = PACK_SIZE) -> AsyncIterator[Share]:
        """Waits for a share, which is held while the block runs.

        Arguments:
            side_by_side: how many exports there are to be at once. None where nobody knows: then it is those that are here now, and the
                export keeps only what it cannot do without, and may use what is free beyond that.
            largest_pack: bytes of the packs that it makes, at most.

        Raises:
            ConfigurationError: the whole budget is too small for blocks of that size.
        """
        self._exports += 1
        taken = 0
        try:
            fair = fair_share(self._budget.total, block_size, side_by_side or self._exports)
            taken = await self._take(block_size, fair)
            sizing = export_sizing(taken, block_size, self._processors, largest_pack)
            if side_by_side is None:
                self._shares.release(taken - sizing.share)
                taken = sizing.share
                yield Share(sizing, self._budget)
            else:
                yield Share(sizing, BudgetShare(self._budget, taken))
        finally:
            self._shares.release(taken)
            self._exports -= 1

    async def _take(self, block_size: int, fair: int) -> int:
        smallest = smallest_share(block_size)
        if smallest > self._budget.total:
            export_sizing(self._budget.total, block_size, self._processors)
        return await self._shares.acquire(smallest, fair)
