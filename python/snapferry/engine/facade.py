"""``Repository``: one open repository. It resolves names, chooses destinations, and hands the work to the pipelines."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from snapferry.config import Config, load_config
from snapferry.destination import Destination
from snapferry.engine.exporting import Exporting
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.values import ReplicaDetails, SnapshotDetails
from snapferry.errors import ConfigurationError, SnapshotNotFound
from snapferry.pipeline.compare import differences
from snapferry.pipeline.extent_reader import index_opener
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.inspect import inspect
from snapferry.pipeline.reader import SnapshotReader
from snapferry.pipeline.rebuild import rebuild_index
from snapferry.pipeline.restore import Restore, RestorePlan
from snapferry.pipeline.verify import Verification
from snapferry.repository.failures import combined
from snapferry.repository.presence import list_presence
from snapferry.repository.snapshots import Listing, list_snapshots, ordered
from snapferry.source import Source, open_source
from snapferry.types import (
    Damage,
    ExportResult,
    ListedSnapshot,
    ProgressCallback,
    RestoreResult,
    VerifyResult,
)

logger = logging.getLogger("snapferry")


def open_repository(config: Config | str | os.PathLike[str] | None = None) -> Repository:
    """A repository, to be used as an async context manager.

    Arguments:
        config: a configuration, or the path of its file; None searches the usual places.

    Raises:
        NotARepository: there is no configuration file. ConfigurationError: it is not usable.
    """
    return Repository(config if isinstance(config, Config) else load_config(config))


class Repository:
    """One repository on the destinations of ``config``. All methods may run side by side.

    Entering it raises AccessDenied (no key, or a wrong one), NotARepository, or DestinationError if no destination can be used; one that
    cannot is passed over with a warning.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._opened: tuple[Membership, Memory] | None = None

    async def __aenter__(self) -> Self:
        """Opens the destinations and the keys."""
        membership = await Membership.open(self._config)
        self._opened = membership, Memory(membership)
        for error in (*membership.members.failures.values(), *membership.members.unwritable.values()):
            logger.warning("%s", error)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes everything."""
        await self.close()

    async def close(self) -> None:
        """Releases destinations, threads and the catalog. Nothing may be called after it; a second call does nothing."""
        opened, self._opened = self._opened, None
        if opened is not None:
            membership, memory = opened
            try:
                await memory.close()
            finally:
                await membership.close()

    @property
    def id(self) -> str:
        """The repository's id, 32 hex digits."""
        return self._membership.members.repository_id

    async def export(
        self,
        source: str | os.PathLike[str] | Source,
        *,
        volume: str | None = None,
        to: Sequence[str] | None = None,
        min_copies: int | None = None,
        block_size: int | None = None,
        parent: str = "auto",
        tags: Mapping[str, str] | None = None,
        skip_unreadable: bool = False,
        dry_run: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> ExportResult:
        """Reads ``source`` once and makes a snapshot of it on several destinations at once.

        Arguments:
            source: the path of a regular file, or an open ``Source``, which stays open.
            volume: the volume's name; by default the source's file name.
            to: names of destinations; all by default.
            min_copies: how many must acknowledge; by default as configured.
            block_size: in bytes, for a new volume.
            parent: ``auto`` (the volume's latest snapshot), ``none``, or a snapshot of the volume to compare with.
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
        copies = self._config.placement.min_copies if min_copies is None else min_copies
        if not 1 <= copies <= len(names):
            raise ConfigurationError(f"min_copies is {copies}, and there are {len(names)} destinations to export to")
        exporting = Exporting(membership, memory, to=names, min_copies=copies, dry_run=dry_run, skip_unreadable=skip_unreadable)
        opened = open_source(source)
        try:
            name = opened.name if volume is None else volume
            return await exporting.run(opened, name, block_size, parent, tags or {}, on_progress)
        finally:
            if opened is not source:
                opened.close()

    async def restore(
        self,
        snapshot: str,
        target: str | os.PathLike[str],
        *,
        sources: Sequence[str] | None = None,
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
            range: (start, end) in bytes of the part to restore, at its place in the target; None as end is the volume's end.
            force: write over a target that is not empty.
            best_effort: return with ``lost`` extents instead of raising.
            dry_run: check everything that can be checked without writing.

        Raises:
            SnapshotNotFound. TargetError, TargetFull: the target. DamageError: blocks that no replica can supply, after all others were restored.
            DestinationError: no destination answers.
        """
        membership, memory = self._both
        replicas = self._replicas(sources)
        listed = await self._resolve(snapshot, membership.replicas, held_by=replicas)
        extent = None if range is None else (range[0], listed.snapshot.size if range[1] is None else range[1])
        plan = RestorePlan(listed.snapshot, target, self._config.repository.state_dir, extent, force, best_effort, dry_run)
        restore = Restore(
            plan, replicas, listed.destinations, membership.tools, index_opener(membership.cache, replicas), on_progress=on_progress
        )
        try:
            return await restore.run()
        finally:
            await memory.note_damage(restore.damage)

    @asynccontextmanager
    async def open_snapshot(
        self, snapshot: str, *, sources: Sequence[str] | None = None, allow_unreadable: bool = False
    ) -> AsyncIterator[SnapshotReader]:
        """Random access to a snapshot without restoring it; names and errors as ``restore``.

        Arguments:
            allow_unreadable: read extents that the source could not supply as zeros, instead of raising ``DamageError`` there.
        """
        membership, memory = self._both
        replicas = self._replicas(sources)
        listed = await self._resolve(snapshot, membership.replicas, held_by=replicas)
        reader = SnapshotReader(
            listed.snapshot,
            replicas,
            listed.destinations,
            membership.tools,
            index_opener(membership.cache, replicas),
            allow_unreadable=allow_unreadable,
        )
        try:
            async with reader:
                yield reader
        finally:
            await memory.note_damage(reader.damage)

    async def list(self, volume: str | None = None) -> list[ListedSnapshot]:
        """The snapshots, by volume and age, oldest first; with the destinations that list each one's commit.

        Warns of snapshots that this machine has seen at a destination and that are gone without a note.

        Raises:
            SnapshotNotFound: there is no such volume.
        """
        listing = await self._listing(self._membership.replicas)
        if volume is None:
            return [item for name in listing.volumes() for item in listing.of_volume(name)]
        found = listing.of_volume(volume)
        if not found and listing.volumes():
            listing.resolve(volume)
            raise SnapshotNotFound(f"no volume is called {volume!r}")
        return found

    async def show(self, snapshot: str) -> SnapshotDetails:
        """A snapshot, and which destinations hold its commit and packs; names and errors as ``restore``."""
        membership, memory = self._both
        listed = await self._resolve(snapshot, membership.replicas)
        found = await inspect(listed.snapshot, membership.replicas, listed.destinations, membership.tools)
        await memory.note_damage(found.damage)
        from snapferry.repository import names

        needed = {names.pack(pack) for pack in found.needed} | {names.snapshot(listed.snapshot.id)}
        damage = [item for item in await memory.damage() if item.object in needed]
        replicas = [
            ReplicaDetails(
                name,
                name in listed.destinations,
                len(found.present.get(name, ())),
                len(found.needed) - len(found.present.get(name, ())),
                tuple(item for item in damage if item.destination == name),
            )
            for name in membership.replicas
        ]
        return SnapshotDetails(listed.snapshot, tuple(replicas))

    async def diff(self, a: str, b: str) -> AsyncIterator[tuple[int, int]]:
        """(offset, length) in bytes of what differs between two snapshots, in order; names and errors as ``restore``."""
        membership, memory = self._both
        listing = await self._listing(membership.replicas)
        one, other = listing.resolve(a), listing.resolve(b)
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
        membership, memory = self._both
        if not 0 <= read_data <= 100:
            raise ConfigurationError(f"{read_data} is no percentage")
        wanted = self._names(None if destination is None else [destination])
        replicas = {name: membership.replicas[name] for name in wanted if name in membership.replicas}
        failures = {name: error for name, error in membership.members.failures.items() if name in wanted}
        if not replicas:
            raise combined("nothing can be verified", failures)
        listing = await list_snapshots(membership.members.keyring, membership.replicas)
        gone = await memory.note_listing(listing)
        chosen = {item.snapshot.id for item in ([listing.resolve(ref) for ref in snapshots] if snapshots else listing.snapshots.values())}
        held = {
            name: [
                item.snapshot for item in ordered(listing.snapshots.values()) if item.snapshot.id in chosen and name in item.destinations
            ]
            for name in replicas
        }
        if snapshots is not None and not any(held.values()):
            raise SnapshotNotFound(f"none of {', '.join(held)} holds what is to be verified")
        presence = await list_presence(replicas)
        loaded = await membership.cache.load(replicas, presence)
        verification = Verification(
            replicas, held, presence, loaded, membership.tools,
            read_data=read_data, everything=snapshots is None, on_progress=on_progress,
        )  # fmt: skip
        result = await verification.run(
            [Damage(name, "config", str(error)) for name, error in failures.items() if error.exit_code == 10]
            + [item for item in gone if item.destination in replicas],
            {name: str(error) for name, error in failures.items() if error.exit_code != 10},
        )
        if snapshots is None and read_data >= 100:
            await memory.replace_damage(replicas, result.damage)
        else:
            await memory.note_damage(result.damage)
        return result

    async def rebuild(self, on_progress: ProgressCallback | None = None) -> None:
        """Makes the catalog, the index and the cache anew from the destinations, and index segments that are missing there."""
        membership, memory = self._both
        await memory.rebuild()
        async with AsyncExitStack() as stack:
            writable, failures = await membership.writable(membership.replicas, stack)
            for error in failures.values():
                logger.warning("%s", error)
            loaded = await rebuild_index(membership.replicas, writable, membership.cache, membership.tools, on_progress)
        await memory.note_damage(loaded.damage)
        await self._listing(membership.replicas)

    async def _resolve(
        self, reference: str, replicas: Mapping[str, Destination], held_by: Mapping[str, Destination] | None = None
    ) -> ListedSnapshot:
        """The snapshot that all ``replicas`` together know by that name: never an older one because somebody is to be read who is behind."""
        listed = (await self._listing(replicas)).resolve(reference)
        if held_by is not None and not set(listed.destinations) & set(held_by):
            raise SnapshotNotFound(
                f"{reference} is snapshot {listed.snapshot.id}, which {', '.join(listed.destinations)} hold and {', '.join(held_by)} does not"
            )
        return listed

    async def _listing(self, replicas: Mapping[str, Destination]) -> Listing:
        membership, memory = self._both
        listing = await list_snapshots(membership.members.keyring, replicas)
        if len(listing.failures) == len(replicas):
            raise combined("no destination can be listed", listing.failures)
        for damage in (*listing.damage, *await memory.note_listing(listing)):
            logger.warning("%s: %s: %s", damage.destination, damage.object, damage.reason)
        for error in listing.failures.values():
            logger.warning("%s", error)
        await memory.note_damage(listing.damage)
        return listing

    def _names(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """Names of destinations in the order of the configuration; ``ConfigurationError`` for an unknown one."""
        if wanted is None:
            return tuple(destination.name for destination in self._config.destinations)
        chosen = {self._config.destination(name).name for name in wanted}
        return tuple(destination.name for destination in self._config.destinations if destination.name in chosen)

    def _replicas(self, wanted: Sequence[str] | None) -> dict[str, Destination]:
        members = self._membership.members
        found = {name: members.replicas[name] for name in self._names(wanted) if name in members.replicas}
        if not found:
            raise combined("none of these destinations can be read", {name: members.failures[name] for name in self._names(wanted)})
        return found

    @property
    def _both(self) -> tuple[Membership, Memory]:
        if self._opened is None:
            raise ConfigurationError("the repository is not open: use it as `async with open_repository(…) as repository`")
        return self._opened

    @property
    def _membership(self) -> Membership:
        return self._both[0]
