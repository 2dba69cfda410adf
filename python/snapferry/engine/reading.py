"""Reading a snapshot back, whole or here and there: from which replicas, at what cost, and what is remembered of those that failed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from snapferry.engine.finding import Finder
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.sets import packs_by_replica
from snapferry.errors import DamageError, SnapshotNotFound
from snapferry.pipeline.extent_reader import index_opener
from snapferry.pipeline.reader import SnapshotReader
from snapferry.pipeline.restore import Restore, RestorePlan
from snapferry.repository.failures import combined
from snapferry.types import ListedSnapshot, Preference, ProgressCallback, RestoreResult


class Reading:
    """Reads from the destinations of the names ``sources``, all by default; see ``Repository.restore``.

    Raises:
        AccessDenied: the key can write and not read. ConfigurationError: a name is none. DestinationError: none of them can be read.
    """

    def __init__(self, membership: Membership, memory: Memory, sources: Sequence[str] | None, prefer: Preference) -> None:
        membership.check_reads()
        names, members = membership.config.names_of(sources), membership.members
        self._replicas = {name: members.replicas[name] for name in names if name in members.replicas}
        if not self._replicas:
            raise combined("none of these destinations can be read", {name: members.failures[name] for name in names})
        self._membership = membership
        self._memory = memory
        self._prefer = prefer

    async def restore(
        self,
        snapshot: str,
        target: str | os.PathLike[str],
        *,
        part: tuple[int, int | None] | None,
        force: bool,
        best_effort: bool,
        dry_run: bool,
        on_progress: ProgressCallback | None,
    ) -> RestoreResult:
        """Restores; see ``Repository.restore``, whose ``range`` is the ``part``."""
        membership = self._membership
        await self._memory.recall_speeds()
        listed = await self._find(snapshot)
        extent = None if part is None else (part[0], listed.snapshot.size if part[1] is None else part[1])
        plan = RestorePlan(listed.snapshot, target, membership.config.repository.state_dir, extent, force, best_effort, dry_run)
        lists = await packs_by_replica(membership, listed, self._replicas, partly=best_effort)
        restore = Restore(
            plan,
            self._replicas,
            listed.destinations,
            membership.tools,
            index_opener(membership.cache, self._replicas),
            costs=membership.costs(self._prefer),
            lists=lists,
            on_progress=on_progress,
        )
        try:
            with self._naming_the_unasked():
                return await restore.run()
        finally:
            await self._memory.note_damage(restore.damage)

    @asynccontextmanager
    async def open(self, snapshot: str, *, allow_unreadable: bool, allow_lost: bool) -> AsyncIterator[SnapshotReader]:
        """Random access; see ``Repository.open_snapshot``."""
        membership = self._membership
        await self._memory.recall_speeds()
        listed = await self._find(snapshot)
        reader = SnapshotReader(
            listed.snapshot,
            self._replicas,
            listed.destinations,
            membership.tools,
            index_opener(membership.cache, self._replicas),
            costs=membership.costs(self._prefer),
            lists=await packs_by_replica(membership, listed, self._replicas, partly=allow_lost),
            allow_unreadable=allow_unreadable,
            allow_lost=allow_lost,
        )
        try:
            with self._naming_the_unasked():
                async with reader:
                    yield reader
        finally:
            await self._memory.note_damage(reader.damage)

    async def _find(self, reference: str) -> ListedSnapshot:
        """The snapshot that all replicas together know by that name: never an older one because somebody is to be read who is behind."""
        (listed,) = await Finder(self._membership, self._memory).find(reference)
        if not set(listed.destinations) & set(self._replicas):
            raise SnapshotNotFound(
                f"{reference} is snapshot {listed.snapshot.id}, which {', '.join(listed.destinations)} hold and {', '.join(self._replicas)} does not"
            )
        return listed

    @contextmanager
    def _naming_the_unasked(self) -> Iterator[None]:
        """What these replicas cannot supply others may, if not all were to be asked."""
        try:
            yield
        except DamageError as error:
            unasked = [destination.name for destination in self._membership.config.destinations if destination.name not in self._replicas]
            if not unasked or not error.extents:
                raise
            raise DamageError(f"{error}; other destinations were not asked: {', '.join(unasked)}", error.extents) from error
