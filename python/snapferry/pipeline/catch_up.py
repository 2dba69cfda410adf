"""Brings a destination that is behind to a snapshot: copies the packs it lacks, then segments, then the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DamageError, DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.pipeline.convert import open_manifest, split_ids
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.naming import copy_segment, name_packs
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.replicate import copy_pack
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.windows import windows
from snapferry.repository import names, objects
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import LoadedIndex, list_segments
from snapferry.repository.notes import good_notes
from snapferry.repository.presence import list_presence
from snapferry.repository.sessions import Session, abandoned_on_error, beating
from snapferry.repository.small import open_object
from snapferry.types import Snapshot

_AT_ONCE = 8

Wants = Callable[[str, bytes, AbstractSet[int]], bool]
"""(destination, data pack, groups of the blocks that it holds) to whether it is to lie there."""


def everything(name: str, pack: bytes, groups: AbstractSet[int]) -> bool:
    """What a destination wants that holds snapshots whole."""
    del name, pack, groups
    return True


class CatchUp:
    """Copies one snapshot from ``sources``, which hold it, to others.

    Arguments:
        loaded: the index, in which blocks are looked up whose place names a pack that is gone; all of ``present`` is usable in it.
        present: the packs that the sources hold.
        leftovers: stores on this machine that may have packs; asked before the sources.
        on_copied: called with a destination's name and the size of each object that was copied there.
        areas: (first block, group) of each stretch of the volume, in order; and ``wants``: which data packs are to lie where.

    Attributes:
        bytes_copied: by destination, in bytes of all objects.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        sources: Mapping[str, Destination],
        tools: Tools,
        loaded: LoadedIndex,
        present: Iterable[bytes],
        leftovers: Sequence[Destination] = (),
        on_copied: Callable[[str, int], object] | None = None,
        areas: Sequence[tuple[int, int]] = ((0, 0),),
        wants: Wants = everything,
    ) -> None:
        self._snapshot = snapshot
        self._loaded = loaded
        self._present = _core.PackSet(b"".join(present))
        self._sources = dict(sources)
        self._tools = tools
        self._leftovers = leftovers
        self._areas = areas
        self._wants = wants
        self._needed: tuple[set[bytes], dict[bytes, set[int]]] | None = None
        self._walking = asyncio.Lock()
        self._on_copied = on_copied
        self.bytes_copied: dict[str, int] = {}

    async def packs(self, target: Destination, present: Iterable[bytes], avoided: AbstractSet[bytes]) -> list[bytes]:
        """Copies every pack of the snapshot that is to lie at the target and is not ``present`` there; returns which.

        Raises:
            DestinationError: one of them is among ``avoided``: a prune there is about to delete it, or may still be. Else as ``copy_pack``.
        """
        known = set(present)
        pages, data = await self._packs()
        wanted = {pack for pack, groups in data.items() if pack not in known and self._wants(target.name, pack, groups)}
        missing = sorted((pages - known) | wanted)
        if not avoided.isdisjoint(missing):
            raise DestinationError(
                "packs that it needs are being deleted there by a prune, or were by the last one; once there has been another prune the next"
                " sync or export brings it up to date",
                target.name,
            )
        gate = asyncio.Semaphore(max(1, min(target.capabilities.concurrency, _AT_ONCE)))

        async def copy(pack: bytes) -> None:
            async with gate:
                self._count(target, await copy_pack(pack, self._sources, target, self._tools, self._leftovers))

        await together(copy(pack) for pack in missing)
        return missing

    async def segments(self, target: Destination) -> None:
        """Copies the index segments that the sources list and the target does not. One that no source has in good order is left out."""
        listed = self._loaded.segments
        missing = {segment for name in self._sources for segment in listed.get(name, {})} - set(listed.get(target.name, {}))
        for segment in sorted(missing):
            self._count(target, await copy_segment(segment, target, self._sources, self._loaded, self._tools))

    async def bring(self, target: Destination, known_bad: AbstractSet[bytes]) -> bool:
        """Copies the snapshot whole, with segments that name its packs there, its commit last; unless it was let go there.

        In a session of its own at the target: a collector must be able to wait for it, or to end it.

        Arguments:
            known_bad: packs that were found broken at the target: not taken for present, no more than torn ones are.

        Returns:
            Whether it is there now: False if it was let go.

        Raises:
            Fenced: a prune has ended it. Else as ``packs`` and ``copy_pack``.
        """
        snapshot, keyring = self._snapshot, self._tools.keyring
        if await good_notes(keyring, target, {snapshot.id}):
            return False
        session = Session(keyring, target, names.new_id(), snapshot.volume, None, brings=snapshot.id)
        async with abandoned_on_error([session]):
            begun = await session.begin()
            async with beating({target.name: session}):
                presence = await list_presence({target.name: target})
                presence.drop({target.name: begun.avoided | known_bad})
                presence.drop(self._loaded.bad_packs)
                presence.drop_misfits(self._loaded.sizes_that_differ(presence))
                held = presence.packs.get(target.name, {}).keys()
                here = held | set(await self.packs(target, held, begun.avoided))
                needed = [pack for pack in await self.needed() if pack in here]
                own = await list_segments(target)
                self._count(target, await name_packs(needed, here, target, own, self._sources, self._loaded, self._tools))
            # A note that came meanwhile wins over the commit, for every reader.
            await session.end("committed", await self._commit())
        self._count(target, session.bytes_sent)
        return True

    async def _commit(self) -> bytes:
        """The snapshot's commit object, from the first source that has it in good order."""
        key = names.snapshot(self._snapshot.id)
        for source in self._sources.values():
            try:
                data = await source.read(key, objects.COMMIT_LIMIT)
                open_object(self._tools.keyring, "commit", key, data, source.name)
            except (ObjectDamaged, ObjectNotFound):
                continue
            return data
        raise DamageError(f"{key}: no destination has it in good order")

    async def needed(self) -> list[bytes]:
        """Every pack that the snapshot needs, wherever it is to lie. ``DamageError`` where that cannot be told."""
        pages, data = await self._packs()
        return sorted(pages | data.keys())

    async def _packs(self) -> tuple[set[bytes], dict[bytes, set[int]]]:
        """Every pack that the snapshot needs: those with pages, and the others with the groups of its blocks in them."""
        async with self._walking:
            if self._needed is None:
                self._needed = await self._walk()
        return self._needed

    async def _walk(self) -> tuple[set[bytes], dict[bytes, set[int]]]:
        snapshot, tools = self._snapshot, self._tools
        manifest = open_manifest(tools.keyring, snapshot)
        loader = PageLoader(Fetcher(self._sources, tools.board), tools.threads)
        pages: set[bytes] = set()
        data: dict[bytes, set[int]] = {}
        async for window in windows(manifest, loader, tools.threads):
            if manifest.lost(window.first, window.end):
                raise DamageError(f"snapshot {snapshot.id}: manifest pages are damaged on every destination that has them")
            if window.zeros:
                continue
            pages |= split_ids(await tools.threads.run(manifest.page_packs, window.first, window.end))
            for first, end, number in _within(self._areas, window.first, window.end):
                packs, _, lost = await tools.threads.run(manifest.resolve, self._loaded.index, self._present, first, end)
                if lost:
                    raise DamageError(f"snapshot {snapshot.id}: blocks that it needs are in no pack of the destinations that have it")
                for pack in split_ids(packs):
                    data.setdefault(pack, set()).add(number)
        return pages, {pack: numbers for pack, numbers in data.items() if pack not in pages}

    def _count(self, target: Destination, size: int) -> None:
        self.bytes_copied[target.name] = self.bytes_copied.get(target.name, 0) + size
        if self._on_copied is not None and size:
            self._on_copied(target.name, size)


def _within(areas: Sequence[tuple[int, int]], first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(first, end, group) of the stretches of the blocks ``first`` to ``end - 1``."""
    for (begin, number), (until, _) in pairwise((*areas, (end, 0))):
        low, high = max(begin, first), min(until, end)
        if low < high:
            yield low, high, number
