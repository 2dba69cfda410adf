"""Copies the live records of packs that are mostly dead into new packs, sent to all destinations at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from snapferry import _core
from snapferry.destination import Destination
from snapferry.pipeline.fetching import Fetcher, NoReplica
from snapferry.pipeline.sizing import PACK_SIZE
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.transport import FanOut
from snapferry.types import MiB

_LONGEST_READ = 8 * MiB
_NEAR = 256 << 10
"""Records this near to each other are read in one go."""


class Repack:
    """One run over some packs.

    Arguments:
        session: id of the session that the new packs are made by.

    Attributes:
        made: the new packs, with their sizes in bytes.
        given_up: packs of which a record could not be read from anywhere: they have to stay.
    """

    def __init__(self, destinations: Mapping[str, Destination], tools: Tools, session: str) -> None:
        self._destinations = destinations
        self._tools = tools
        self._fetcher = Fetcher(destinations, tools.board)
        # A quarter of the budget at most: as much again is on its way while the next is filled.
        capacity = max(4 * MiB + (1 << 16), min(PACK_SIZE, tools.budget.total // 4))
        self._capacity = capacity
        self._repacker = _core.Repacker(tools.keyring, tools.workers, session=bytes.fromhex(session), capacity=capacity)
        self.made: dict[bytes, int] = {}
        self.given_up: set[bytes] = set()

    async def run(self, records: Sequence[tuple[bytes, list[tuple[int, int]]]]) -> list[_core.Segment]:
        """Copies ``records`` (pack, (offset, length) of each); when it returns all new packs and their segments are acknowledged by all.

        Raises:
            TooFewCopies: a destination failed: then none of the old packs may go.
        """
        budget = self._tools.budget
        async with FanOut(list(self._destinations.values()), needed=len(self._destinations)) as fanout:
            held = await budget.acquire(min(_LONGEST_READ + self._capacity, budget.total // 2))
            try:
                for pack, places in records:
                    await self._copy(fanout, pack, places)
                await self._send(fanout, await self._tools.threads.run(self._repacker.finish))
            finally:
                budget.release(held)
            await fanout.drain()
            segments = await self._tools.threads.run(self._repacker.segments)
            for segment in segments:
                await fanout.send(names.segment(segment.id), segment.data, len(segment.data), _nothing)
            await fanout.drain()
        return segments

    async def _copy(self, fanout: FanOut, pack: bytes, places: list[tuple[int, int]]) -> None:
        """All of one pack, or nothing of the rest of it once a record cannot be had."""
        header = bytearray()

        async def keep(data: memoryview) -> None:
            header[:] = data

        try:
            await self._fetcher.read(pack, 0, _core.PACK_HEADER_LENGTH, keep)
            for run in _runs(places):
                await self._send(fanout, await self._take(pack, header, run))
        except NoReplica:
            self.given_up.add(pack)

    async def _take(self, pack: bytes, header: bytearray, run: list[tuple[int, int]]) -> list[_core.Pack]:
        start = run[0][0]
        packs: list[_core.Pack] = []

        async def take(data: memoryview) -> str | None:
            try:
                packs.extend(await self._tools.threads.run(self._repacker.take, header, start, data, run))
            except _core.CoreError as error:
                return str(error)
            return None

        await self._fetcher.read(pack, start, run[-1][0] + run[-1][1] - start, take)
        return packs

    async def _send(self, fanout: FanOut, packs: list[_core.Pack]) -> None:
        while packs:
            pack = packs.pop()
            reserved = await self._tools.budget.acquire(min(pack.capacity, self._tools.budget.total // 4))

            def done(reserved: int = reserved) -> None:
                self._tools.budget.release(reserved)

            self.made[pack.id] = len(pack)
            await fanout.send(names.pack(pack.id), pack, len(pack), done)
            del pack


def _runs(places: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Ascending (offset, length) pairs, in runs that are read at once."""
    run: list[tuple[int, int]] = []
    for offset, length in places:
        if run and (offset > run[-1][0] + run[-1][1] + _NEAR or offset + length - run[0][0] > _LONGEST_READ):
            yield run
            run = []
        run.append((offset, length))
    if run:
        yield run


def _nothing() -> None:
    """Segments are small; nothing waits for them."""
