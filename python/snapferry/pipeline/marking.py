"""Walks the trees of snapshots for what they reach; pages that several share are read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DamageError
from snapferry.pipeline.convert import roots_to_core
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.tools import Tools
from snapferry.repository.reached import Tree

_WINDOW = 64 * 256
"""Blocks whose pages are loaded at once: 64 leaves."""


async def mark(trees: Iterable[Tree], replicas: Mapping[str, Destination], tools: Tools, scratch: Path) -> _core.Marker:
    """What ``trees`` reach, read from whichever of ``replicas`` has each page. Where one of them lies in parts, a block that is missing is no damage.

    Arguments:
        scratch: an existing directory for what does not fit into memory.

    Raises:
        DamageError: a page that no replica has in good order; so nobody can say what is needed. DestinationError: none answers.
    """
    trees = list(trees)
    marker = _core.Marker(str(scratch), in_parts=any(tree.in_parts for tree in trees))
    loader = PageLoader(Fetcher(replicas, tools.board), tools.threads)
    # Of one volume one after another, so that what they share is still in the store's caches.
    for tree in sorted(trees, key=lambda tree: (tree.size, tree.snapshot)):
        await _walk(marker, tree, loader, tools)
    return marker


async def _walk(marker: _core.Marker, tree: Tree, loader: PageLoader, tools: Tools) -> None:
    threads = tools.threads
    try:
        manifest = marker.manifest(tools.keyring, roots_to_core(tree.roots), tree.size, tree.block_size)
    except (_core.CoreError, ValueError, OverflowError) as error:
        raise DamageError(f"snapshot {tree.snapshot}: {error}") from error
    first = 0
    while (first := await threads.run(manifest.next_data, first)) < manifest.blocks:
        until = min(first - first % _WINDOW + _WINDOW, manifest.blocks)
        await loader.load(manifest, first, until, places=False)
        if await threads.run(manifest.any_lost):
            raise DamageError(
                f"snapshot {tree.snapshot}: manifest pages are damaged on every destination that has them, so that nobody can tell what it"
                " needs; nothing was removed. Heal it (`snapferry verify` shows what is wrong), or forget it"
            )
        await threads.run(manifest.evict, until)
        first = until
