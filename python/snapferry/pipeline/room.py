"""Room in packs for the blocks of an export: reserved in the byte budget before the first record, given back when it is known."""

from __future__ import annotations

from snapferry import _core
from snapferry.pipeline.sizing import ExportSizing
from snapferry.transport import ByteBudget


class Room:
    """Keeps a packer provided.

    Invariant: ``held`` is what was provided and is in no finished pack; ``promised`` what running batches may still use.
    """

    def __init__(self, packer: _core.Packer, budget: ByteBudget, sizing: ExportSizing) -> None:
        self._packer = packer
        self._budget = budget
        self._sizing = sizing
        self._promised = 0
        self.held = 0

    async def promise(self, need: int) -> None:
        """Waits until ``need`` bytes of packs are there for one batch. Called by one task."""
        while self._packer.room - self._promised < need:
            granted = await self._budget.acquire(self._sizing.smallest_pack, self._sizing.largest_pack)
            granted = self._rounded(granted)
            self.held += granted
            self._packer.provide(granted)
        self._promised += need

    def _rounded(self, granted: int) -> int:
        """One of two sizes: buffers are used again by size, and each odd one leaves a hole in the memory of the process."""
        size = self._sizing.largest_pack if granted == self._sizing.largest_pack else self._sizing.smallest_pack
        self._budget.release(granted - size)
        return size

    def keep(self, need: int) -> None:
        """The batch is done with what it was promised."""
        self._promised -= need

    def finished(self, pack: _core.Pack) -> int:
        """A pack is full: whoever sends it holds its reservation from now on. Returns it, in bytes."""
        capacity = min(pack.capacity, self.held)
        self.held -= capacity
        return capacity

    def close(self) -> None:
        """No pack is being filled any more."""
        self._budget.release(self.held)
        self.held = 0
