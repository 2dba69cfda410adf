"""Verification: are all parts of the snapshots there, and, for as many packs as asked for, is every byte what it should be.

Each destination is looked at by itself, because each must be able to restore by itself; but of a snapshot that lies in parts each has only some
of the data packs, and all of its destinations together are to have enough copies. Packs that no snapshot names are no damage: an interrupted
export leaves some, and the next one uses them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType

from snapferry import _core
from snapferry.destination import Destination, list_keys
from snapferry.errors import DestinationError, SnapferryError
from snapferry.pipeline.convert import open_manifest, split_ids
from snapferry.pipeline.extents import merged
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.parts import PartSet
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.verify_objects import verify_objects
from snapferry.pipeline.windows import windows
from snapferry.repository import names
from snapferry.repository.collections import being_deleted
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import LoadedIndex
from snapferry.repository.notes import good_notes
from snapferry.repository.presence import Presence
from snapferry.types import Damage, MiB, Progress, ProgressCallback, Snapshot, VerifyResult

_BAD_PER_SNAPSHOT = 10000


@dataclass(slots=True)
class _Seen:
    """What one destination's snapshots need, and which packs turned out bad there."""

    needed: set[bytes] = field(default_factory=set)
    data: set[bytes] = field(default_factory=set)
    bad: dict[bytes, str] = field(default_factory=dict)


class Verification:
    """One run over some destinations.

    Arguments:
        held: by destination, the snapshots whose commit it lists and which are to be verified.
        presence: the packs each lists.
        loaded: the index of every segment that is in good order somewhere, with all packs that any destination lists declared usable.
        sets: by id, what is known of snapshots that lie in parts.
        everything: look at all packs that are listed, not only at those that ``held`` needs.
        read_data: percentage of packs whose every byte is read, 0 to 100.
        suspected: by destination, packs that were found broken before: they are read in any case.

    Attributes:
        read_well: by destination, the suspected packs that turned out to be whole.
        segments: by destination, the index segments that are in good order there.
    """

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        held: Mapping[str, Iterable[Snapshot]],
        presence: Presence,
        loaded: LoadedIndex,
        tools: Tools,
        *,
        read_data: float,
        everything: bool,
        suspected: Mapping[str, AbstractSet[bytes]] = MappingProxyType({}),
        sets: Mapping[str, PartSet] = MappingProxyType({}),
        on_progress: ProgressCallback | None = None,
    ) -> None:
        self._destinations = destinations
        self._held = {name: list(snapshots) for name, snapshots in held.items()}
        self._presence = presence
        self._loaded = loaded
        self._index = loaded.index
        self._sizes = loaded.sizes_that_differ(presence)
        self._tools = tools
        self._read_data = read_data
        self._everything = everything
        self._suspected = suspected
        self.read_well: dict[str, set[bytes]] = {}
        self.segments: dict[str, list[str]] = {}
        self._sets = sets
        self._on_progress = on_progress
        self._damage: list[Damage] = []
        self._unverified: dict[str, str] = {}
        self._packs = 0
        self._bytes = 0
        self._read: dict[str, int] = dict.fromkeys(destinations, 0)
        self._to_read = 0

    async def run(self, known: Iterable[Damage] = (), unverified: Mapping[str, str] | None = None) -> VerifyResult:
        """Looks at everything and returns what was found, after what is ``known`` and what is ``unverified`` already."""
        begun = time.monotonic()
        self._damage += known
        self._unverified.update(unverified or {})
        await together(self._destination(name) for name in self._destinations)
        snapshots = {snapshot.id for held in self._held.values() for snapshot in held}
        short = tuple(found for key in sorted(snapshots & self._sets.keys()) if (found := self._sets[key].shortage(key)))
        seconds = time.monotonic() - begun
        return VerifyResult(len(snapshots), self._packs, self._bytes, tuple(self._damage), seconds, dict(self._unverified), short)

    async def _destination(self, name: str) -> None:
        destination = self._destinations[name]
        seen = _Seen()
        try:
            found = await verify_objects(self._tools.keyring, destination, self._tools.threads)
            self._damage += found.damage
            self.segments[name] = found.segments
            # What a prune has decided to delete and not come to yet is nobody's any more.
            going = await being_deleted(self._tools.keyring, destination)
            self._presence.drop({name: going})
            named = await self._tools.threads.run(self._loaded.packs_named, found.segments) - going
            for snapshot in self._held.get(name, []):
                await self._structure(name, snapshot, named, seen)
            self._check_segments(name, named, seen)
            await self._read_packs(name, seen)
            for snapshot in self._held.get(name, []) if seen.bad else []:
                await self._name_extents(name, snapshot, seen)
            if any(item.destination == name for item in self._damage):
                await self._drop_what_went(name)
        except DestinationError as error:
            self._unverified[name] = str(error)

    async def _drop_what_went(self, name: str) -> None:
        """A prune beside this deletes packs that were listed before, and snapshots are let go: that they are gone is no damage."""
        destination = self._destinations[name]
        packs = await being_deleted(self._tools.keyring, destination)
        left = {names.parse_snapshot(key) for key in await list_keys(destination, names.SNAPSHOTS)}
        noted = {names.parse_forgotten(key) for key in await list_keys(destination, names.FORGOTTEN)} - left
        damaged = {item.snapshot for item in self._damage if item.destination == name and item.snapshot in noted}
        let_go = await good_notes(self._tools.keyring, destination, {snapshot for snapshot in damaged if snapshot})

        def went(item: Damage) -> bool:
            return item.destination == name and (names.parse_pack(item.object) in packs or item.snapshot in let_go)

        self._damage = [item for item in self._damage if not went(item)]

    async def _structure(self, name: str, snapshot: Snapshot, named: set[bytes], seen: _Seen) -> None:
        """Both trees, read from this destination alone; and every pack that they need and that is to be here, listed with its right size."""
        threads = self._tools.threads
        fetcher = Fetcher({name: self._destinations[name]}, self._tools.board)
        manifest = open_manifest(self._tools.keyring, snapshot)
        lost: list[tuple[int, int]] = []
        listed = self._presence.packs.get(name, {})
        parts = self._sets.get(snapshot.id)
        here = _core.PackSet(b"".join(listed if parts is None else parts.counts))
        async for window in windows(manifest, PageLoader(fetcher, threads), threads):
            if window.zeros:
                continue
            lost += manifest.lost(window.first, window.end)
            if not lost or manifest.lost(window.first, window.end) != [(window.first, window.end - window.first)]:
                plan = await threads.run(_core.Plan, self._tools.keyring, self._tools.workers, manifest, window.first, window.end, 8 * MiB)
                # Places are hints: what a prune has copied elsewhere is found through the index, and its old pack is not missed; its
                # segments name it no more.
                packs, gone, _ = await threads.run(manifest.resolve, self._index, here, window.first, window.end)
                hinted = split_ids(await threads.run(manifest.packs, window.first, window.end))
                needed = split_ids(packs) | split_ids(gone) | (hinted & named)
                if parts is not None:
                    pages = split_ids(await threads.run(manifest.page_packs, window.first, window.end))
                    needed = parts.due_at(name, needed, pages, listed)
                seen.data |= needed & {fetch[0] for _, fetch in await threads.run(plan.extents)}
                seen.needed |= needed
        extents = merged((first * snapshot.block_size, count * snapshot.block_size) for first, count in lost)
        for damage in fetcher.damage:
            self._damage.append(Damage(name, damage.object, damage.reason, snapshot.id, extents))
        for pack in seen.needed - seen.bad.keys():
            size = listed.get(pack)
            if size is None:
                seen.bad[pack] = "missing"
            elif self._sizes.get(pack, size) != size:
                seen.bad[pack] = f"{size} bytes long instead of {self._sizes[pack]}"

    def _check_segments(self, name: str, named: set[bytes], seen: _Seen) -> None:
        """An acknowledged snapshot's data packs are all named by index segments of the same place."""
        unnamed = (seen.data & self._presence.packs.get(name, {}).keys()) - named - seen.bad.keys()
        if unnamed:
            example = names.pack(min(unnamed))
            self._damage.append(
                Damage(
                    name,
                    names.INDEX,
                    f"index segments are missing or broken: none names {len(unnamed)} packs that are there ({example}); rebuild makes them anew",
                )
            )

    async def _read_packs(self, name: str, seen: _Seen) -> None:
        """Reads the share of packs that was asked for, evenly spread over their ids, every one in the same order each time."""
        listed = self._presence.packs.get(name, {})
        packs = sorted((set(listed) if self._everything else seen.needed & listed.keys()) - seen.bad.keys())
        self._packs += len(packs)
        suspected = self._suspected.get(name, frozenset())
        chosen = [
            pack
            for number, pack in enumerate(packs)
            if int((number + 1) * self._read_data / 100) > int(number * self._read_data / 100) or pack in suspected
        ]
        self._to_read += sum(listed[pack] for pack in chosen)
        for pack in chosen:
            problem = await self._read_pack(name, pack, listed[pack])
            if problem:
                seen.bad[pack] = problem
            elif pack in suspected:
                self.read_well.setdefault(name, set()).add(pack)
        for pack, reason in seen.bad.items():
            if pack not in seen.needed:
                self._damage.append(Damage(name, names.pack(pack), reason))

    async def _read_pack(self, name: str, pack: bytes, size: int) -> str | None:
        tools = self._tools
        if size > _core.MAX_PACK_LENGTH:
            return f"{size} bytes long, more than any pack"
        reserved = await tools.budget.acquire(min(size, tools.budget.total // 2))
        try:
            data = bytearray(size)
            await self._destinations[name].read_into(names.pack(pack), 0, memoryview(data))
            problems = await tools.threads.run(_core.check_pack, tools.keyring, tools.workers, pack, data)
        except SnapferryError as error:
            return str(error)
        finally:
            tools.budget.release(reserved)
        self._bytes += size
        self._read[name] += size
        if self._on_progress is not None:
            self._on_progress(Progress("verify", name, sum(self._read.values()), self._to_read, dict(self._read)))
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        return "; ".join(problems[:3]) + more or None

    async def _name_extents(self, name: str, snapshot: Snapshot, seen: _Seen) -> None:
        """Which parts of the volume lie in the bad packs, as far as any destination's pages say so."""
        tools = self._tools
        fetcher = Fetcher(self._destinations, tools.board, first=[name])
        manifest = open_manifest(tools.keyring, snapshot)
        hit: dict[bytes, list[tuple[int, int]]] = {}
        pages: set[bytes] = set()
        async for window in windows(manifest, PageLoader(fetcher, tools.threads, patient=True), tools.threads):
            if window.zeros:
                continue
            here = split_ids(await tools.threads.run(manifest.packs, window.first, window.end)) & seen.bad.keys()
            if not here:
                continue
            pages |= here
            plan = await tools.threads.run(_core.Plan, tools.keyring, tools.workers, manifest, window.first, window.end, 8 * MiB)
            for pack in here:
                hit.setdefault(pack, []).extend(plan.extents_in(pack))
        for pack in sorted(pages):
            extents = merged(hit.get(pack, []))[:_BAD_PER_SNAPSHOT]
            self._damage.append(Damage(name, names.pack(pack), seen.bad[pack], snapshot.id, extents))
