"""What one snapshot needs and which destinations have it, without reading any data."""

from __future__ import annotations

from collections.abc import Mapping
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
from snapferry.repository.presence import list_presence
from snapferry.types import Damage, Snapshot


@dataclass(frozen=True, slots=True)
class Inspection:
    """By destination the packs that the snapshot needs there, and those of them that it lists; what was found broken while the trees were read."""

    needed: dict[str, frozenset[bytes]]
    present: dict[str, frozenset[bytes]]
    damage: tuple[Damage, ...]


async def inspect(
    snapshot: Snapshot, replicas: Mapping[str, Destination], holders: tuple[str, ...], tools: Tools, open_index: IndexOpener
) -> Inspection:
    """Walks the snapshot's trees and compares with what each of ``replicas`` lists. ``DamageError`` if no replica has a page in good order.

    Where a destination lacks packs that the trees name, the index is asked whether it has the blocks in others.
    """
    presence = await list_presence(replicas)
    fetcher = Fetcher(replicas, tools.board, holders)
    hinted = await _needed(snapshot, fetcher, tools, None)
    needed = dict.fromkeys(replicas, frozenset(hinted))
    index: _core.Index | None = None
    for name, packs in presence.packs.items():
        if name in holders and hinted - packs.keys():
            index = index or await open_index()
            needed[name] = frozenset(await _needed(snapshot, fetcher, tools, (index, _core.PackSet(b"".join(packs)))))
    present = {name: needed[name] & packs.keys() for name, packs in presence.packs.items()}
    return Inspection(needed, present, tuple(fetcher.damage))


async def _needed(snapshot: Snapshot, fetcher: Fetcher, tools: Tools, among: tuple[_core.Index, _core.PackSet] | None) -> set[bytes]:
    """The packs that the trees name; or, where some are not ``among`` those that are there, others of these that hold the same blocks."""
    manifest = open_manifest(tools.keyring, snapshot)
    needed: set[bytes] = set()
    async for window in windows(manifest, PageLoader(fetcher, tools.threads), tools.threads):
        if window.zeros:
            continue
        if manifest.lost(window.first, window.end):
            raise DamageError(f"snapshot {snapshot.id}: manifest pages are damaged on every destination that has them")
        if among is None:
            needed |= split_ids(await tools.threads.run(manifest.packs, window.first, window.end))
        else:
            packs, missing, _ = await tools.threads.run(manifest.resolve, *among, window.first, window.end)
            needed |= split_ids(packs) | split_ids(missing)
    return needed
