"""Finished packs on their way to all destinations, each with its share of the budget until the last has it."""

from __future__ import annotations

from collections.abc import Callable

from snapferry import _core
from snapferry.pipeline.room import Room
from snapferry.pipeline.segments import SegmentWriter
from snapferry.repository import names
from snapferry.transport import ByteBudget, FanOut


class Sender:
    """Sends the packs of one export; ``sent`` holds their ids."""

    def __init__(self, fanout: FanOut, budget: ByteBudget) -> None:
        self._fanout = fanout
        self._budget = budget
        self.sent: set[bytes] = set()

    async def data(self, packs: list[_core.Pack], room: Room, segments: SegmentWriter) -> None:
        """Data packs, whose reservation came from ``room``; ``segments`` hears of each that is everywhere. Empties the list."""
        while packs:
            pack = packs.pop()
            capacity = room.finished(pack)
            pack_id = pack.id

            def done(pack_id: bytes = pack_id, capacity: int = capacity) -> None:
                self._budget.release(capacity)
                segments.delivered(pack_id)

            await self._send(pack, done)
            del pack

    async def manifest(self, packs: list[_core.Pack]) -> None:
        """Manifest packs, each reserved here. Empties the list."""
        while packs:
            pack = packs.pop(0)
            reserved = await self._budget.acquire(min(pack.capacity, self._budget.total // 4))

            def done(reserved: int = reserved) -> None:
                self._budget.release(reserved)

            await self._send(pack, done)
            del pack

    async def _send(self, pack: _core.Pack, done: Callable[[], object]) -> None:
        key = names.pack(pack.id)
        self.sent.add(pack.id)

        def forget() -> None:
            self._fanout.forget((key,))
            done()

        await self._fanout.send(key, pack, len(pack), forget)
