"""``Repository``: what can be done with an open repository. It resolves names, and hands the work to whoever does it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from snapferry.config import Config, load_config
from snapferry.engine.bulk import Bulk
from snapferry.engine.exporting import Exporting
from snapferry.engine.finding import Finder
from snapferry.engine.forgetting import Forgetting
from snapferry.engine.ground import Ground
from snapferry.engine.mapping import given_map
from snapferry.engine.opened import OpenRepository
from snapferry.engine.pruning import prune
from snapferry.engine.reading import Reading
from snapferry.engine.rebuilding import rebuild
from snapferry.engine.repairing import Repairing
from snapferry.engine.showing import details
from snapferry.engine.syncing import Syncing, check_sync
from snapferry.engine.values import BulkResult, ExportJob, JobOutcome, SnapshotDetails
from snapferry.engine.verifying import check_share, verify
from snapferry.lifecycle.prune import MAX_UNUSED, PrunePlan
from snapferry.lifecycle.retention import RetentionPolicy
from snapferry.lifecycle.waiting import LEASE_SECONDS
from snapferry.pipeline.compare import differences
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.reader import SnapshotReader
from snapferry.source import AnySource, ChangeMap, open_source
from snapferry.types import (
    ExportResult,
    ForgetResult,
    ListedSummary,
    Preference,
    ProgressCallback,
    PruneResult,
    RepairResult,
    RestoreResult,
    SyncResult,
    VerifyResult,
)


def open_repository(config: Config | str | os.PathLike[str] | None = None) -> Repository:
    """A repository, to be used as an async context manager.

    Arguments:
        config: a configuration, or the path of its file; None searches the usual places.

    Raises:
        NotARepository: there is no configuration file. ConfigurationError: it is not usable.
    """
    return Repository(config if isinstance(config, Config) else load_config(config))


class Repository(OpenRepository):
    """One repository on the destinations of ``config``. All methods may run side by side.

    Entering it raises AccessDenied (no key, or a wrong one), NotARepository, or DestinationError if no destination can be used; one that
    cannot is passed over with a warning.
    """

    async def export(
        self,
        source: str | os.PathLike[str] | AnySource,
        *,
        volume: str | None = None,
        to: Sequence[str] | None = None,
        placement: str | None = None,
        min_copies: int | None = None,
        block_size: int | None = None,
        parent: str = "auto",
        changed: str | os.PathLike[str] | ChangeMap | None = None,
        tags: Mapping[str, str] | None = None,
        skip_unreadable: bool = False,
        dry_run: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> ExportResult:
        """Reads ``source`` once and makes a snapshot of it on several destinations at once.

        Arguments:
            source: the path of a file, block device or FIFO, ``-`` for standard input, or an open source, which stays open.
            volume: the volume's name; by default the source's file name.
            to: names of destinations; all by default.
            placement: which of them get what: a policy, as ``[placement]`` writes it; by default as configured for the volume.
            min_copies: how many copies must be acknowledged; by default as configured.
            block_size: in bytes, for a new volume.
            parent: ``auto`` (the volume's latest snapshot), ``none``, or a snapshot of the volume to compare with.
            changed: a map of what changed since the parent, or its path: only that is read. It must name the parent, or ``parent`` must.
            skip_unreadable: record extents that cannot be read, instead of failing.
            dry_run: read, compare and count; write nothing.

        Returns:
            What was done. Its ``exit_code`` is 3 where copies are missing or extents were unreadable.

        Raises:
            SourceError: the source is missing, cannot be read, or changed its size. ConfigurationError: an argument is unusable.
            SnapshotNotFound: the parent. Below ``min_copies``, an error with the code of interfaces.md and every destination's reason.
        """
        membership, memory = self._both
        names = self._names(to)
        opened = open_source(source)
        try:
            changes = given_map(changed)
            name = opened.name if volume is None else volume
            policy, copies = self._config.placing(names, name, placement, min_copies)
            async with Ground(membership, memory) as ground:
                exporting = Exporting(
                    ground, membership.tools, to=names, policy=policy, min_copies=copies, dry_run=dry_run, skip_unreadable=skip_unreadable
                )
                return await exporting.run(opened, name, block_size, parent, tags or {}, on_progress, changes)
        finally:
            if opened is not source:
                opened.close()

    async def export_many(
        self,
        jobs: Sequence[ExportJob],
        *,
        parallel: int | None = None,
        dry_run: bool = False,
        on_progress: ProgressCallback | None = None,
        on_result: Callable[[JobOutcome], object] | None = None,
    ) -> BulkResult:
        """Exports several sources side by side; what becomes of one changes nothing for the others.

        Arguments:
            jobs: one for each source, of different volumes; begun in this order.
            parallel: how many at once, by default up to 4; fewer where the memory does not suffice.
            dry_run: as ``export``.
            on_result: called with each outcome as it comes.

        Raises:
            ConfigurationError: a job is unusable, or two of one volume; nothing was started. What ends one job alone is in its outcome.
        """
        return await Bulk(self._config, *self._both, jobs, parallel, dry_run, on_progress, on_result).run()

    async def restore(
        self,
        snapshot: str,
        target: str | os.PathLike[str],
        *,
        sources: Sequence[str] | None = None,
        prefer: Preference = "fast",
        range: tuple[int, int | None] | None = None,  # noqa: A002 - the contract's word
        force: bool = False,
        best_effort: bool = False,
        dry_run: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> RestoreResult:
        """Brings a snapshot back to a file or block device; run again, it goes on where it was.

        Arguments:
            snapshot: a volume (its latest), ``volume~N``, ``volume@TIME``, or 8 or more digits of an id.
            sources: names of the destinations to read from; all by default.
            prefer: ``cheap``: from the dearer ones (by ``price`` of the configuration) only what the cheaper cannot supply.
            range: (start, end) in bytes of the part to restore, at its place in the target; None as end is the volume's end.
            force: write over a target that is not empty.
            best_effort: return with ``lost`` extents instead of raising.
            dry_run: check everything that can be checked without writing.

        Raises:
            AccessDenied: the key can write and not read. SnapshotNotFound. TargetError, TargetFull: the target. DamageError: blocks that no replica can supply, after all others were restored.
            DestinationError: no destination answers.
        """
        reading = Reading(*self._both, sources, prefer)
        return await reading.restore(
            snapshot, target, part=range, force=force, best_effort=best_effort, dry_run=dry_run, on_progress=on_progress
        )

    @asynccontextmanager
    async def open_snapshot(
        self,
        snapshot: str,
        *,
        sources: Sequence[str] | None = None,
        prefer: Preference = "fast",
        allow_unreadable: bool = False,
        allow_lost: bool = False,
    ) -> AsyncIterator[SnapshotReader]:
        """Random access to a snapshot without restoring it; names and errors as ``restore``.

        Arguments:
            allow_unreadable: read extents that the source could not supply as zeros, instead of raising ``DamageError`` there.
            allow_lost: the same for what no replica can supply; the reader lists it as ``lost``.
        """
        reading = Reading(*self._both, sources, prefer)
        async with reading.open(snapshot, allow_unreadable=allow_unreadable, allow_lost=allow_lost) as reader:
            yield reader

    async def list(self, volume: str | None = None) -> list[ListedSummary]:
        """The snapshots, by volume and age, oldest first; with the destinations that list each one's commit.

        Only commits are read that this machine has not seen before. Warns of snapshots that it has seen at a destination and that are gone
        without a note.

        Raises:
            SnapshotNotFound: there is no such volume.
        """
        return await self._finder.listed(volume)

    async def show(self, snapshot: str) -> SnapshotDetails:
        """A snapshot, and which destinations hold its commit and packs; names and errors as ``restore``."""
        (listed,) = await self._finder.find(snapshot)
        return await details(*self._both, listed)

    async def diff(self, a: str, b: str) -> AsyncIterator[tuple[int, int]]:
        """(offset, length) in bytes of what differs between two snapshots, in order; names and errors as ``restore``."""
        membership, memory = self._both
        one, other = await self._finder.find(a, b)
        fetcher = Fetcher(membership.replicas, membership.tools.board, {*one.destinations, *other.destinations})
        try:
            async for extent in differences(one.snapshot, other.snapshot, fetcher, membership.tools):
                yield extent
        finally:
            await memory.note_damage(fetcher.damage)

    async def verify(
        self,
        snapshots: Sequence[str] | None = None,
        *,
        read_data: float = 0.0,
        destination: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> VerifyResult:
        """Checks structure and presence, and every byte of a share of the packs, at each destination by itself.

        Arguments:
            snapshots: names as in ``restore``; all by default.
            read_data: percentage of packs to be read, 0 to 100.
            destination: only this one; by default all; one that cannot be reached is ``unverified``, one without the repository damaged.
        """
        check_share(read_data)
        wanted = self._names(None if destination is None else [destination])
        return await verify(*self._both, wanted, snapshots, read_data, on_progress)

    async def repair(
        self,
        snapshots: Sequence[str] | None = None,
        *,
        destinations: Sequence[str] | None = None,
        read_data: float = 0.0,
        dry_run: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> RepairResult:
        """Heals what ``verify`` finds, and looks again: packs, segments and commits from good replicas, the rest from what is there.

        A broken object is deleted only once its good bytes are in memory and have been checked. What no replica has is listed as ``left``,
        with the extents of the volumes that it hits; no export builds on it any more.

        Arguments:
            snapshots: names as in ``restore``; all by default.
            destinations: names; all by default.
            read_data: percentage of packs to be read, 0 to 100: what is broken inside shows only so. Those known to be broken are read in any case.
            dry_run: tell what could be healed; write nothing.

        Raises:
            SnapshotNotFound: as ``restore``. DestinationError: no destination can be looked at, or none that needs it be written to.
        """
        check_share(read_data)
        repairing = Repairing(*self._both, self._names(destinations), snapshots, read_data, on_progress)
        return await repairing.run(dry_run=dry_run)

    async def forget(
        self,
        snapshots: Sequence[str] = (),
        *,
        policy: RetentionPolicy | None = None,
        destinations: Sequence[str] | None = None,
        dry_run: bool = False,
    ) -> ForgetResult:
        """Lets snapshots go, at each destination by what that one holds. Their data stays until ``prune``.

        Arguments:
            snapshots: without a policy, names of single snapshots as in ``restore`` (never a volume's name alone); with one, names of the
                volumes it is for, all by default.
            policy: what to keep of each volume; see ``snapferry.RetentionPolicy``.
            destinations: names; all by default.
            dry_run: tell what would go, and what a prune would give back then; write nothing.

        Raises:
            ConfigurationError: nothing is named and the policy is empty. SnapshotNotFound: as ``restore``. DestinationError: none can be used.
        """
        membership, memory = self._both
        membership.check_reads()
        forgetting = Forgetting(membership, memory, self._finder, self._names(destinations))
        return await forgetting.run(snapshots, policy, dry_run=dry_run)

    async def prune(
        self,
        *,
        destinations: Sequence[str] | None = None,
        max_unused: float = MAX_UNUSED,
        lease: float = LEASE_SECONDS,
        exclusive: bool = False,
        dry_run: bool = False,
    ) -> PruneResult:
        """Deletes what no snapshot needs any more, beside exports and restores if need be; an interrupted one is finished by the next.

        Arguments:
            destinations: names; all by default. Only then are packs that are mostly dead copied, and the old ones deleted.
            max_unused: the share (0 to 1) of what stays that may be needed by nobody.
            lease: seconds without a sign of life after which an export counts as dead; one that lives is waited for.
            exclusive: nothing else uses the repository; for stores that cannot keep writers apart.
            dry_run: tell what would go; write nothing.

        Raises:
            DamageError: what a snapshot needs cannot be told, or is not there: nothing was removed. Fenced: other prunes are at work.
            DestinationError: no destination can be used.
        """
        wanted = self._names(destinations)
        complete = len(wanted) == len(self._config.destinations)
        plan = PrunePlan(max_unused, lease, complete, dry_run)
        membership, memory = self._both
        membership.check_reads()
        return await prune(membership, memory, wanted, plan, exclusive=exclusive)

    async def sync(
        self,
        destinations: Sequence[str] | None = None,
        *,
        sources: Sequence[str] | None = None,
        snapshots: Sequence[str] = (),
        volumes: Sequence[str] = (),
        dry_run: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> SyncResult:
        """Brings destinations up to date from the others: copies every snapshot that they lack, and packs that they have lost.

        A snapshot that was forgotten at a destination is not brought back there. Each destination is served at its own pace. Run again, it
        goes on from what is there.

        Arguments:
            destinations: names of those to bring up to date; all by default.
            sources: names of those to copy from; all by default.
            snapshots, volumes: only these snapshots (names as in ``restore``), and those of these volumes; all by default.
            dry_run: tell what would be copied and what that costs; write nothing.

        Raises:
            ConfigurationError: nothing could ever be copied. SnapshotNotFound: as ``restore``. DestinationError: none can be written to.
            What fails at one destination, or for one snapshot, is in the result.
        """
        targets, wanted = self._names(destinations), None if sources is None else self._names(sources)
        check_sync(targets, wanted, self._config.rates())
        return await Syncing(*self._both, targets, wanted, on_progress, dry_run=dry_run).run(snapshots, volumes)

    async def rebuild(self, on_progress: ProgressCallback | None = None) -> None:
        """Makes the catalog, the index and the cache anew from the destinations, and index segments that are missing there."""
        await rebuild(*self._both, on_progress)

    def _names(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        return self._config.names_of(wanted)

    @property
    def _finder(self) -> Finder:
        return Finder(*self._both)
