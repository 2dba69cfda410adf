"""Which packs a destination's own snapshots need and cannot be read there, told from the trees of any replica."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DamageError
from snapferry.pipeline.convert import open_manifest, split_ids
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.windows import windows
from snapferry.repository.index_cache import LoadedIndex
from snapferry.types import Snapshot


async def lacking(
    snapshots: Iterable[Snapshot],
    replicas: Mapping[str, Destination],
    loaded: LoadedIndex,
    present: AbstractSet[bytes],
    suspected: AbstractSet[bytes],
    tools: Tools,
) -> set[bytes]:
    """Of the trees of ``snapshots``: packs of which something is needed that is in no pack ``present``; and those named that are ``suspected``.

    Raises:
        DamageError: pages are in good order nowhere.
    """
    here = _core.PackSet(b"".join(present))
    found: set[bytes] = set()
    for snapshot in snapshots:
        loader = PageLoader(Fetcher(replicas, tools.board), tools.threads)
        manifest = open_manifest(tools.keyring, snapshot)
        async for window in windows(manifest, loader, tools.threads):
            if manifest.lost(window.first, window.end):
                raise DamageError(f"snapshot {snapshot.id}: manifest pages are damaged on every destination that has them")
            if not window.zeros:
                _, gone, _ = await tools.threads.run(manifest.resolve, loaded.index, here, window.first, window.end)
                named = await tools.threads.run(manifest.packs, window.first, window.end)
                found |= split_ids(gone) | (split_ids(named) & suspected)
    return found
