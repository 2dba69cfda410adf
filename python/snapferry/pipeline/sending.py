"""Finished packs on their way to where the layout wants them, each with its share of the budget until the last has it."""

from __future__ import annotations

from collections.abc import Callable

from snapferry import _core
from snapferry.pipeline.room import Room
from snapferry.pipeline.segments import SegmentWriter
from snapferry.placement import Layout
from snapferry.repository import names
from snapferry.transport import ByteBudget, FanOut


class Sender:
    """Sends the packs of one export; ``sent`` holds their ids."""

    def __init__(self, fanout: FanOut, budget: ByteBudget, layout: Layout) -> None:
        self._fanout = fanout
        self._budget = budget
        self._layout = layout
        self.sent: set[bytes] = set()

    async def data(self, packs: list[_core.Pack], room: Room, segments: SegmentWriter) -> None:
        """Data packs, whose reservation came from ``room``; ``segments`` hears of each. Empties the list."""
        while packs:
            pack = packs.pop()
            capacity = room.finished(pack)
            pack_id = pack.id

            def done(capacity: int = capacity) -> None:
                self._budget.release(capacity)

            await self._send(pack, done, only=self._holders(pack))
            segments.sent(pack_id)
            del pack

    async def manifest(self, packs: list[_core.Pack], *, after: int = 0) -> None:
        """Manifest packs, each reserved here, ``after`` what was sent before that mark. Empties the list."""
        while packs:
            pack = packs.pop(0)
            reserved = await self._budget.acquire(min(pack.capacity, self._budget.total // 4))

            def done(reserved: int = reserved) -> None:
                self._budget.release(reserved)

            await self._send(pack, done, after=after)
            del pack

    def _holders(self, pack: _core.Pack) -> tuple[str, ...] | None:
        """Who is sent a data pack; None: everybody. One that everybody of a share gets is kept for those too that are spooled for."""
        if self._layout.whole:
            return None
        share = self._layout.group(pack.group).share
        return share.holders if share.mirrored else self._layout.chosen(pack.id, share, self._fanout.alive)

    async def _send(self, pack: _core.Pack, done: Callable[[], object], *, only: tuple[str, ...] | None = None, after: int = 0) -> None:
        self.sent.add(pack.id)
        await self._fanout.send(names.pack(pack.id), pack, len(pack), done, only=only, after=after)
