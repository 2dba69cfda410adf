"""How one object gets to a destination: from memory, or from the spool, and checked where its key was taken already."""

from __future__ import annotations

import contextlib
import mmap

from typing_extensions import Buffer

from snapferry.destination.contract import Destination
from snapferry.transport.budget import ByteBudget
from snapferry.transport.item import Item, check_taken
from snapferry.transport.spool import Spool


class Sender:
    """Creates objects at ``destination``. Read back from ``spool`` one at a time needs no room in ``budget``. For one event loop."""

    def __init__(self, destination: Destination, spool: Spool | None, budget: ByteBudget | None) -> None:
        self._destination = destination
        self._spool = spool
        self._budget = budget
        self._reading_unreserved = False

    async def send(self, item: Item, data: Buffer | None) -> bool:
        """Whether it was created; ``ObjectDamaged`` if it was not, and other bytes are there."""
        assert data is not None
        created = await self._destination.create(item.key, data)
        if not created:
            await check_taken(self._destination, item.key, data)
        return created

    async def send_spooled(self, item: Item) -> bool:
        """From the disk: one object at a time beside the budget, so that it can always go on; more within it."""
        assert self._spool is not None
        reserved, unreserved = 0, not self._reading_unreserved
        if unreserved:
            self._reading_unreserved = True
        elif self._budget is not None:
            reserved = await self._budget.acquire(min(item.size, self._budget.total // 4))
        # A mapping of its own goes back to the system at once; the allocator would keep it.
        data = mmap.mmap(-1, max(1, item.size))
        view = memoryview(data)[: item.size]
        try:
            await self._spool.read_into(item.key, view)
            return await self.send(item, view)
        finally:
            del view
            with contextlib.suppress(BufferError):  # An error's frames, and a connection that is given up, look at it for a while.
                data.close()
            if unreserved:
                self._reading_unreserved = False
            if reserved and self._budget is not None:
                self._budget.release(reserved)
