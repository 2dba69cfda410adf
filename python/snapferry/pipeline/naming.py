"""Sees that index segments at a destination name the packs that lie there, and none that do not: a pack that is named and missing is damage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError
from snapferry.pipeline.convert import split_ids
from snapferry.pipeline.replicate import create_segment
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.index_cache import SEGMENT_LIMIT, LoadedIndex, add_whole_pack, open_segment


async def name_packs(
    packs: Iterable[bytes],
    held: AbstractSet[bytes],
    target: Destination,
    own: Iterable[str],
    sources: Mapping[str, Destination],
    loaded: LoadedIndex,
    tools: Tools,
) -> int:
    """Names all ``packs``, by segments that ``sources`` have if they name nothing but what is ``held`` at ``target``, else by new ones.

    Arguments:
        own: the segments that the target has in good order.

    Returns:
        How many bytes of segments were stored there.

    Raises:
        ObjectDamaged: a pack that was to be read for it is torn or altered. Other ``DestinationError`` of the target.
    """
    own = frozenset(own)
    unnamed = set(packs) - await tools.threads.run(loaded.packs_named, own)
    if not unnamed:
        return 0
    stored = 0
    naming = await tools.threads.run(loaded.index.segments_naming, b"".join(unnamed))
    for segment in sorted(item.hex() for item in split_ids(naming)):
        named = await tools.threads.run(loaded.packs_named, [segment])
        if segment not in own and named & unnamed and named <= held:
            size = await copy_segment(segment, target, sources, loaded, tools)
            unnamed -= named if size else set()
            stored += size
    return stored + await _make_segments(sorted(unnamed), target, tools)


async def copy_segment(segment: str, target: Destination, sources: Mapping[str, Destination], loaded: LoadedIndex, tools: Tools) -> int:
    """From the first of ``sources`` that has it in good order; returns its size in bytes, 0 if none has."""
    for name, source in sources.items():
        if name == target.name or segment not in loaded.segments.get(name, {}):
            continue
        try:
            data = await source.read(names.segment(segment), SEGMENT_LIMIT)
            await tools.threads.run(open_segment, tools.keyring, segment, data, name)
        except DestinationError:
            continue
        await create_segment(target, segment, data)
        return len(data)
    return 0


async def _make_segments(packs: list[bytes], target: Destination, tools: Tools) -> int:
    stored, index = 0, _core.Index()
    for pack in packs:
        _, size = await target.read_tail(names.pack(pack), 0)
        await add_whole_pack(tools.keyring, tools.threads, index, target, pack, size)
    for made in await tools.threads.run(index.take_added, tools.keyring) if packs else []:
        await create_segment(target, made.id, made.data)
        stored += len(made.data)
    return stored
