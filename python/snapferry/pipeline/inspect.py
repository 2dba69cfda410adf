"""What one snapshot needs and which destinations have it, without reading any data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snapferry.destination import Destination
from snapferry.errors import DamageError
from snapferry.pipeline.convert import open_manifest, split_ids
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.windows import windows
from snapferry.repository.presence import list_presence
from snapferry.types import Damage, Snapshot


@dataclass(frozen=True, slots=True)
class Inspection:
    """``needed`` packs of a snapshot; by destination, those that it lists; what was found broken while the trees were read."""

    needed: frozenset[bytes]
    present: dict[str, frozenset[bytes]]
    damage: tuple[Damage, ...]


async def inspect(snapshot: Snapshot, replicas: Mapping[str, Destination], holders: tuple[str, ...], tools: Tools) -> Inspection:
    """Walks the snapshot's trees and compares with what each of ``replicas`` lists. ``DamageError`` if no replica has a page in good order."""
    fetcher = Fetcher(replicas, tools.board, holders)
    manifest = open_manifest(tools.keyring, snapshot)
    needed: set[bytes] = set()
    async for window in windows(manifest, PageLoader(fetcher, tools.threads), tools.threads):
        if window.zeros:
            continue
        if manifest.lost(window.first, window.end):
            raise DamageError(f"snapshot {snapshot.id}: manifest pages are damaged on every destination that has them")
        needed |= split_ids(await tools.threads.run(manifest.packs, window.first, window.end))
    presence = await list_presence(replicas)
    present = {name: frozenset(needed & packs.keys()) for name, packs in presence.packs.items()}
    return Inspection(frozenset(needed), present, tuple(fetcher.damage))
