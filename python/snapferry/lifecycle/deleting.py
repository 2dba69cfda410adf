"""What a collection deletes at one destination, in the order that a crash cannot upset: index entries first, then packs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.collections import still_open
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import SEGMENT_LIMIT, IndexCache, open_segment
from snapferry.repository.presence import list_presence
from snapferry.types import MiB

_AT_ONCE = 16
_CHUNK = 256
_BATCH = 64 * MiB
"""Bytes of segments that are merged at once, which are held in memory twice."""

_SMALL = 1 * MiB
_MANY = 16
"""So many small segments are merged into larger ones on the way."""


async def delete_all(destination: Destination, keys: Iterable[str]) -> None:
    """Deletes objects, several at once; those that are gone are no error."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def delete(key: str) -> None:
        async with gate:
            await destination.delete(key)

    await together(delete(key) for key in keys)


class SegmentSweep:
    """Makes the index segments of one destination anew without some packs.

    Arguments:
        scratch: an existing directory for segments that are looked at.
        elsewhere: packs that are named though they are not here.
    """

    def __init__(
        self, destination: Destination, cache: IndexCache, tools: Tools, scratch: Path, elsewhere: AbstractSet[bytes] = frozenset()
    ) -> None:
        self._elsewhere = elsewhere
        self._destination = destination
        self._cache = cache
        self._tools = tools
        self._scratch = scratch

    async def run(self, doomed: Collection[bytes]) -> None:
        """Replaces the segments that name ``doomed`` packs, or any that are not there nor ``elsewhere``; and small ones, where there are many.

        The new ones are stored before the old ones go. A segment that cannot be read is left as it is: its packs are read whole by
        whoever needs them, and ``rebuild`` makes another one.
        """
        batch: list[Path] = []
        small: list[Path] = []
        size = 0
        named_doomed: set[bytes] = set()
        listed = [info async for info in self._destination.list(names.INDEX)]
        # After the segments: an export that runs beside this sends packs first, so that each that a segment names is listed.
        presence = await list_presence({self._destination.name: self._destination})
        if presence.failures:
            raise presence.failures[self._destination.name]
        present = presence.packs[self._destination.name]
        for info in listed:
            segment = names.parse_segment(info.key)
            path = await self._fetch(segment) if segment is not None else None
            if path is None:
                continue
            packs = await self._tools.threads.run(_packs_of, path)
            gone = {pack for pack in packs if pack in doomed or (pack not in present and pack not in self._elsewhere)}
            if not gone:
                if info.size < _SMALL:
                    small.append(path)
                else:
                    path.unlink()
                continue
            named_doomed |= gone
            batch.append(path)
            size += info.size
            if size >= _BATCH:
                await self._replace(batch, named_doomed)
                batch, named_doomed, size = [], set(), 0
        if len(small) >= _MANY:
            batch += small
        if batch:
            await self._replace(batch, named_doomed)

    async def _fetch(self, segment: str) -> Path | None:
        path = self._scratch / segment
        try:
            data = await self._destination.read(names.segment(segment), SEGMENT_LIMIT)
            plain = await self._tools.threads.run(open_segment, self._tools.keyring, segment, data, self._destination.name)
        except (ObjectDamaged, ObjectNotFound):
            return None
        await self._tools.threads.run(path.write_bytes, plain)
        return path

    async def _replace(self, paths: list[Path], gone: set[bytes]) -> None:
        tools = self._tools
        merged = await tools.threads.run(_core.merge_segments, tools.keyring, [str(path) for path in paths], b"".join(gone))
        for segment in merged:
            await self._destination.create(names.segment(segment.id), segment.data)
        fresh = {segment.id for segment in merged}
        await delete_all(self._destination, [names.segment(path.name) for path in paths if path.name not in fresh])
        for path in paths:
            path.unlink()


async def delete_packs(destination: Destination, number: int, packs: Collection[bytes]) -> bool:
    """Deletes the packs of a collection, and the notes that say that a copy of one is bad; False if somebody else has finished it meanwhile.

    Looked at before each batch: deletes that come late might hit what was put there again.
    """
    ordered = sorted(packs)
    for start in range(0, len(ordered), _CHUNK):
        if not await still_open(destination, number):
            return False
        await delete_all(destination, [names.pack(pack) for pack in ordered[start : start + _CHUNK]])
    noted = {names.parse_damaged(info.key) async for info in destination.list(names.DAMAGED)}
    await delete_all(destination, [names.damaged(pack) for pack in ordered if pack in noted])
    return True


def _packs_of(path: Path) -> list[bytes]:
    index = _core.Index()
    index.add_segment(bytes.fromhex(path.name), path.read_bytes())
    return [pack for pack, _ in index.packs()]
