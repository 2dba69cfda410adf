"""Makes the local cache anew, and the index segments that are missing at the destinations."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import SEGMENT_LIMIT, IndexCache, LoadedIndex, split
from snapferry.repository.presence import Presence, list_presence
from snapferry.repository.threads import Threads
from snapferry.types import Progress, ProgressCallback


async def rebuild_index(
    replicas: Mapping[str, Destination],
    writable: Mapping[str, Destination],
    cache: IndexCache,
    tools: Tools,
    on_progress: ProgressCallback | None,
) -> LoadedIndex:
    """Fetches every segment again, reads the tail of every pack that none names, and stores what that yields as a new segment."""
    await cache.clear()
    presence = await list_presence(replicas)
    loaded = await cache.load(replicas, presence)
    await store_added(loaded, writable, tools.threads)
    if on_progress is not None:
        packs = len({pack for listed in presence.packs.values() for pack in listed})
        on_progress(Progress("rebuild", "index", packs, packs, {}))
    await complete_segments(loaded, presence, writable)
    return loaded


async def store_added(loaded: LoadedIndex, writable: Mapping[str, Destination], threads: Threads) -> None:
    """Stores segments of the packs that had to be read, so that nobody has to read them again. What fails is only slower."""

    async def store(segment: str, data: bytes, destination: Destination) -> None:
        try:
            await destination.create(names.segment(segment), data)
        except DestinationError:
            return
        loaded.segments.setdefault(destination.name, {})[segment] = len(data)

    while loaded.made:
        segment, path = loaded.made.popitem()
        try:
            data = await threads.run(path.read_bytes)
        except OSError:
            continue  # Cleared by a rebuild beside this, say: whoever loads it next reads the packs again.
        # Written without a sync: a crash of the machine since, or a disk that lies, must not be stored for good under a name that it is not.
        if await threads.run(_core.blake3, data) == bytes.fromhex(segment):
            await together(store(segment, data, destination) for destination in writable.values())
        with contextlib.suppress(OSError):
            await threads.run(path.unlink)


async def complete_segments(loaded: LoadedIndex, presence: Presence, writable: Mapping[str, Destination]) -> None:
    """Copies to each destination the segments that others have and that name packs which its own do not."""
    for name, destination in writable.items():
        own = loaded.segments.get(name, {})
        others = {segment for listed in loaded.segments.values() for segment in listed} - own.keys()
        if not others or loaded.packs_named(others).isdisjoint(presence.packs.get(name, {})):
            continue
        unnamed = presence.packs.get(name, {}).keys() - loaded.packs_named(own)
        naming = {segment.hex() for segment in split(loaded.index.segments_naming(b"".join(unnamed)))}
        for segment in sorted(naming - own.keys()):
            named = loaded.packs_named([segment])
            if not named & unnamed:
                continue
            data = await _from_any(segment, loaded, writable)
            if data is None:
                continue
            try:
                await destination.create(names.segment(segment), data)
            except DestinationError:
                break
            unnamed = unnamed - named


async def _from_any(segment: str, loaded: LoadedIndex, replicas: Mapping[str, Destination]) -> bytes | None:
    for name, listed in loaded.segments.items():
        if segment in listed and name in replicas:
            try:
                data = await replicas[name].read(names.segment(segment), SEGMENT_LIMIT)
            except DestinationError:
                continue
            if _core.blake3(data).hex() == segment:
                return data
    return None
