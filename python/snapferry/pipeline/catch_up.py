"""Brings a destination that is behind to a snapshot: copies the packs it lacks, then segments, then the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from snapferry.destination import Destination
from snapferry.errors import DamageError, DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.pipeline.convert import open_manifest, split_ids
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.replicate import copy_pack
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.windows import windows
from snapferry.repository import names, objects
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import SEGMENT_LIMIT, open_segment
from snapferry.repository.sessions import create_checked
from snapferry.repository.small import read_object
from snapferry.types import Snapshot

_AT_ONCE = 2


class CatchUp:
    """Copies one snapshot from ``sources``, which hold it, to others.

    Attributes:
        copied: by destination, the packs that were copied.
        bytes_copied: by destination, in bytes of all objects.
    """

    def __init__(self, snapshot: Snapshot, sources: Mapping[str, Destination], tools: Tools) -> None:
        self._snapshot = snapshot
        self._sources = dict(sources)
        self._tools = tools
        self._needed: list[bytes] | None = None
        self._walking = asyncio.Lock()
        self.copied: dict[str, set[bytes]] = {}
        self.bytes_copied: dict[str, int] = {}

    async def packs(self, target: Destination, present: Iterable[bytes]) -> None:
        """Copies every pack of the snapshot that is not ``present``; raises as ``copy_pack``."""
        known = set(present)
        missing = [pack for pack in await self._packs() if pack not in known]
        copied = self.copied.setdefault(target.name, set())
        gate = asyncio.Semaphore(_AT_ONCE)

        async def copy(pack: bytes) -> None:
            async with gate:
                self._count(target, await copy_pack(pack, self._sources, target, self._tools))
                copied.add(pack)

        await together(copy(pack) for pack in missing)

    async def segments(self, target: Destination, listed: Mapping[str, Mapping[str, int]]) -> None:
        """Copies the index segments that the sources list and the target does not. One that no source has in good order is left out."""
        missing = {segment for name in self._sources for segment in listed.get(name, {})} - set(listed.get(target.name, {}))
        for segment in sorted(missing):
            for name, source in self._sources.items():
                if segment not in listed.get(name, {}):
                    continue
                try:
                    data = await source.read(names.segment(segment), SEGMENT_LIMIT)
                    open_segment(self._tools.keyring, segment, data, name)
                except DestinationError:
                    continue
                await target.create(names.segment(segment), data)
                self._count(target, len(data))
                break

    async def commit(self, target: Destination) -> None:
        """Copies the session's objects and the commit itself. Everything it needs must be there."""
        snapshot_id = self._snapshot.id
        key = names.snapshot(snapshot_id)
        for source in self._sources.values():
            try:
                await read_object(self._tools.keyring, source, "commit", key, objects.COMMIT_LIMIT)
                data = await source.read(key, objects.COMMIT_LIMIT)
            except (ObjectDamaged, ObjectNotFound):
                continue
            await self._session(source, target)
            await create_checked(target, key, data)
            self._count(target, len(data))
            return
        raise DamageError(f"{key}: no destination has it in good order")

    async def _session(self, source: Destination, target: Destination) -> None:
        """What the snapshot's session left at the source; an end that the target has decided for itself stays."""
        async for info in source.list(f"{names.SESSIONS}{self._snapshot.id}/"):
            parsed = names.parse_session(info.key)
            if parsed is None:
                continue
            try:
                kind = "end" if parsed[1] == names.END else "session"
                await read_object(self._tools.keyring, source, kind, info.key, objects.END_LIMIT)
                data = await source.read(info.key, objects.END_LIMIT)
            except (ObjectDamaged, ObjectNotFound):
                continue
            if await target.create(info.key, data):
                self._count(target, len(data))

    async def _packs(self) -> list[bytes]:
        """Every pack that the snapshot's trees name."""
        async with self._walking:
            if self._needed is None:
                self._needed = sorted(await self._walk())
        return self._needed

    async def _walk(self) -> set[bytes]:
        snapshot, tools = self._snapshot, self._tools
        manifest = open_manifest(tools.keyring, snapshot)
        loader = PageLoader(Fetcher(self._sources, tools.board), tools.threads)
        found: set[bytes] = set()
        async for window in windows(manifest, loader, tools.threads):
            if manifest.lost(window.first, window.end):
                raise DamageError(f"snapshot {snapshot.id}: manifest pages are damaged on every destination that has them")
            if not window.zeros:
                found |= split_ids(await tools.threads.run(manifest.packs, window.first, window.end))
        return found

    def _count(self, target: Destination, size: int) -> None:
        self.bytes_copied[target.name] = self.bytes_copied.get(target.name, 0) + size
