"""An export with a map of changes: audited first, then only what it names is read, and the rest taken over from the parent.

Where every pack that the parent names is in place, the rest is not even looked at. Else the parent's trees are walked, and what no usable
pack holds any more is read from the source and stored again. A map that cannot be relied on is dropped, and said so.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from snapferry import _core
from snapferry.pipeline.audit import Audit
from snapferry.pipeline.changes import BlockChanges, block_changes
from snapferry.pipeline.convert import open_manifest
from snapferry.pipeline.extents import total
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.sizing import ExportSizing
from snapferry.pipeline.steps import MapUnusable, Step, only_changes, taken_over
from snapferry.pipeline.tools import Tools
from snapferry.source import ChangeMap, Source
from snapferry.types import MapUse, Snapshot

logger = logging.getLogger("snapferry")


class Mapped:
    """One use of one map.

    Arguments:
        parent: the snapshot that the map was made against; None if nobody that takes part holds it.
        parent_packs: ids of the packs that it names, if this machine knows them.

    Attributes:
        bytes_read: by the audit.
    """

    def __init__(
        self,
        changes: ChangeMap,
        source: Source,
        parent: Snapshot | None,
        parent_packs: bytes | None,
        tools: Tools,
        *,
        skip_unreadable: bool,
    ) -> None:
        self._map = changes
        self._source = source
        self._parent = parent
        self._parent_packs = parent_packs
        self._tools = tools
        self._batch = 1
        self._skip_unreadable = skip_unreadable
        self._changes: BlockChanges | None = None
        self._audited = 0
        self._reason: str | None = None
        self.inherits = False
        self.bytes_read = 0

    async def begin(self, fetcher: Fetcher, sizing: ExportSizing) -> bool:
        """Audits the map; whether it may be used. Raises ``SourceError`` for a block that cannot be read."""
        self._batch = sizing.batch
        parent = self._parent
        if parent is None:
            self.refuse("none of the destinations that take part holds its parent")
            return False
        self._changes = await self._tools.threads.run(self._blocks, parent)
        loader = PageLoader(fetcher, self._tools.threads, patient=True)
        audit = Audit(
            self._source, parent.block_size, open_manifest(self._tools.keyring, parent), loader, self._tools, sizing,
            skip_unreadable=self._skip_unreadable,
        )  # fmt: skip
        try:
            await audit.run(self._changes)
        except MapUnusable as error:
            self.refuse(str(error))
        self._audited, self.bytes_read = audit.audited.blocks, audit.audited.bytes
        return self._reason is None

    def refuse(self, reason: str) -> None:
        """The map is not to be used, and everything read."""
        self._reason = reason
        logger.warning("%s is not used, and all of %s is read: %s", self._map.name, self._source.name, reason)

    @property
    def use(self) -> MapUse:
        """What became of the map."""
        return MapUse(self._reason is None, self._audited, self._reason)

    @property
    def blocks_zero(self) -> int:
        """Blocks that were taken for zeros unread."""
        return total(self._changes.zeros) if self._changes else 0

    def steps(
        self, manifest: _core.Manifest, loader: PageLoader, packer: _core.Packer, writer: _core.ManifestWriter | None, index: _core.Index
    ) -> AsyncGenerator[Step, None]:
        """How to go over the source. ``writer`` is None in a dry run."""
        assert self._changes is not None
        threads, batch = self._tools.threads, self._batch
        self.inherits = self._parent_packs is not None and index.all_usable(self._parent_packs)
        if self.inherits:
            return only_changes(self._changes, batch, manifest, loader, writer, threads)
        return taken_over(self._changes, batch, manifest, loader, packer, threads)

    def packs(self, written: bytes) -> bytes:
        """Ids of the packs that the new snapshot may name, of which its writer knows those ``written``."""
        if not self.inherits or not self._parent_packs:
            return written
        ids = {source[at : at + 32] for source in (self._parent_packs, written) for at in range(0, len(source), 32)}
        return b"".join(ids)

    def _blocks(self, parent: Snapshot) -> BlockChanges:
        size, block_size = self._source.size, parent.block_size
        grown = parent.size - parent.size % block_size
        tail = list(self._source.extents(grown, size)) if size > parent.size else []
        return block_changes(self._map, size=size, parent_size=parent.size, block_size=block_size, unreadable=parent.unreadable, tail=tail)
