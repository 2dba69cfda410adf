"""What one snapshot needs and which destinations have it, without reading any data."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DamageError
from snapferry.pipeline.convert import open_manifest, split_ids
from snapferry.pipeline.extent_reader import IndexOpener
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.windows import windows
from snapferry.placement import described
from snapferry.repository.presence import Presence, list_presence
from snapferry.types import Damage, Snapshot


@dataclass(frozen=True, slots=True)
class Needed:
    """The packs that a snapshot needs: those with pages of its manifest, and those with blocks."""

    pages: frozenset[bytes]
    data: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a snapshot needs and where it lies.

    Attributes:
        needed: by destination; where snapshots lie whole, each may have the same blocks in other packs. Of one in parts it is the same everywhere.
        listed: by destination that can be asked, the packs that it lists, and their sizes in bytes.
        damage: what was found broken while the trees were read.
    """

    needed: dict[str, Needed]
    listed: dict[str, dict[bytes, int]]
    damage: tuple[Damage, ...]


async def inspect(
    snapshot: Snapshot, replicas: Mapping[str, Destination], holders: tuple[str, ...], tools: Tools, open_index: IndexOpener
) -> Inspection:
    """Walks the snapshot's trees and compares with what each of ``replicas`` lists. ``DamageError`` if no replica has a page in good order.

    Where a destination lacks packs that the trees name, the index is asked whether it has the blocks in others; of a snapshot in parts, whether
    any destination of its set has.
    """
    presence = await list_presence(replicas)
    fetcher = Fetcher(replicas, tools.board, holders)
    hinted = await _needed(snapshot, fetcher, tools, None)
    named = hinted.pages | hinted.data
    needed = dict.fromkeys(replicas, hinted)
    listed = {name: presence.packs[name] for name in holders if name in presence.packs}
    if described(snapshot.placement).in_parts:
        union = {pack for packs in listed.values() for pack in packs}
        if named - union:
            needed = dict.fromkeys(replicas, await _needed(snapshot, fetcher, tools, (await open_index(), _set(union))))
    else:
        index: _core.Index | None = None
        for name, packs in listed.items():
            if named - packs.keys():
                index = index or await open_index()
                needed[name] = await _needed(snapshot, fetcher, tools, (index, _set(packs.keys())))
    return Inspection(needed, dict(presence.packs), tuple(fetcher.damage))


async def missing_everywhere(
    snapshot: Snapshot, replicas: Mapping[str, Destination], presence: Presence, tools: Tools, open_index: IndexOpener
) -> tuple[int, int]:
    """(how many of its packs none of ``replicas`` lists, nor another one with the same blocks; how many it needs)."""
    fetcher = Fetcher(replicas, tools.board)
    union = {pack for packs in presence.packs.values() for pack in packs}
    needed = await _needed(snapshot, fetcher, tools, None)
    if not (needed.pages | needed.data) <= union:
        needed = await _needed(snapshot, fetcher, tools, (await open_index(), _set(union)))
    packs = needed.pages | needed.data
    return len(packs - union), len(packs)


def _set(packs: AbstractSet[bytes]) -> _core.PackSet:
    return _core.PackSet(b"".join(packs))


async def _needed(snapshot: Snapshot, fetcher: Fetcher, tools: Tools, among: tuple[_core.Index, _core.PackSet] | None) -> Needed:
    """The packs that the trees name; or, where some are not ``among`` those that are there, others of these that hold the same blocks."""
    manifest = open_manifest(tools.keyring, snapshot)
    pages: set[bytes] = set()
    packs: set[bytes] = set()
    async for window in windows(manifest, PageLoader(fetcher, tools.threads), tools.threads):
        if window.zeros:
            continue
        if manifest.lost(window.first, window.end):
            raise DamageError(f"snapshot {snapshot.id}: manifest pages are damaged on every destination that has them")
        pages |= split_ids(await tools.threads.run(manifest.page_packs, window.first, window.end))
        if among is None:
            packs |= split_ids(await tools.threads.run(manifest.packs, window.first, window.end))
        else:
            found, missing, _ = await tools.threads.run(manifest.resolve, *among, window.first, window.end)
            packs |= split_ids(found) | split_ids(missing)
    return Needed(frozenset(pages), frozenset(packs - pages))
