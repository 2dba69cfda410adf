"""From what a caller asks of an export to what the pipeline does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.errors import ConfigurationError, SnapferryError, SourceError
from snapferry.pipeline.backup import Export, ExportPlan
from snapferry.pipeline.preparing import Prepared, prepare
from snapferry.pipeline.rebuild import store_added
from snapferry.pipeline.sizing import export_sizing
from snapferry.repository import names, objects
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.sessions import finish_commits
from snapferry.repository.snapshots import VOLUME_NAME, Listing, list_snapshots
from snapferry.source import Source
from snapferry.types import (
    DEFAULT_BLOCK_SIZE,
    MAX_BLOCK_SIZE,
    MIN_BLOCK_SIZE,
    ExportResult,
    ProgressCallback,
    Roots,
    Snapshot,
)


class Exporting:
    """One export, as ``Repository.export`` describes it."""

    def __init__(
        self, membership: Membership, memory: Memory, *, to: tuple[str, ...], min_copies: int, dry_run: bool, skip_unreadable: bool
    ) -> None:
        self._membership = membership
        self._memory = memory
        self._to = to
        self._min_copies = min_copies
        self._dry_run = dry_run
        self._skip_unreadable = skip_unreadable
        self._failures: dict[str, BaseException] = {}

    async def run(
        self,
        source: Source,
        volume: str,
        block_size: int | None,
        parent: str,
        tags: Mapping[str, str],
        on_progress: ProgressCallback | None,
    ) -> ExportResult:
        """Exports; see ``Repository.export``."""
        check_volume(volume)
        check_block_size(block_size)
        if source.size is None:
            raise SourceError(f"source {source.name}: its size is not known, which this version needs")
        membership = self._membership
        async with AsyncExitStack() as stack:
            destinations = await self._open(stack)
            self._enough(destinations)
            replicas = {**membership.replicas, **destinations}
            listing = await list_snapshots(membership.members.keyring, replicas)
            damage = list(listing.damage)
            await self._memory.note_listing(listing)
            for name in [name for name in destinations if name in listing.failures]:
                self._failures[name] = listing.failures[name]
                del destinations[name]
            self._enough(destinations)
            series = listing.of_volume(volume)
            reference = series[-1] if series else None
            compared = self._parent(listing, volume, parent, reference.snapshot if reference else None)
            latest = reference.snapshot if reference else None
            draft = self._draft(source, volume, block_size, tags, compared, latest, await self._memory.generation(volume))
            engine = membership.config.engine
            sizing = export_sizing(membership.tools.budget.total, draft.block_size, engine.threads)
            # Waited for here, holding nothing yet: exports side by side must never lock each other up half-way.
            await membership.tools.admission.acquire(sizing.held)
            stack.callback(membership.tools.admission.release, sizing.held)
            prepared = await prepare(
                membership.members.keyring, destinations, membership.cache,
                session_id=draft.id, volume=volume, parent=compared, reference=reference.snapshot if reference else None,
                holders=reference.destinations if reference else (), known_bad=await self._memory.bad_packs(), dry_run=self._dry_run,
            )  # fmt: skip
            self._failures.update(prepared.failures)
            damage += prepared.damage
            if not self._dry_run:
                await store_added(prepared.loaded, prepared.destinations, membership.tools)
            plan = ExportPlan(
                self._with_parent(draft, prepared), prepared.parent, self._min_copies,
                codec=engine.codec, level=engine.level, check=engine.check_built,
                skip_unreadable=self._skip_unreadable, dry_run=self._dry_run,
            )  # fmt: skip
            export = Export(
                plan, source, prepared, replicas, membership.cache, membership.tools,
                order=self._to, failures=self._failures, on_progress=on_progress,
            )  # fmt: skip
            result = await export.run()
        if not self._dry_run:
            await self._memory.note_snapshot(result.snapshot, result.acknowledged)
        await self._memory.note_damage(damage + export.damage)
        return result

    async def _open(self, stack: AsyncExitStack) -> dict[str, Destination]:
        """The destinations that can take part; a dry run only reads them. Commits that killed writers left half done are finished first."""
        if self._dry_run:
            failures = {**self._membership.members.unwritable, **self._membership.members.failures}
            self._failures.update({name: failures[name] for name in self._to if name in failures})
            return {name: self._membership.replicas[name] for name in self._to if name not in failures}
        opened, failures_here = await self._membership.writable(self._to, stack)
        self._failures.update(failures_here)
        keyring = self._membership.members.keyring

        async def finish(destination: Destination) -> SnapferryError | None:
            try:
                await finish_commits(keyring, destination)
            except SnapferryError as error:
                return error
            return None

        for name, problem in zip(list(opened), await together(finish(destination) for destination in opened.values()), strict=True):
            if problem is not None:
                self._failures[name] = problem
                del opened[name]
        return opened

    def _enough(self, destinations: Mapping[str, Destination]) -> None:
        if len(destinations) < self._min_copies:
            copies = "1 copy" if self._min_copies == 1 else f"{self._min_copies} copies"
            raise combined(f"too few destinations can be used to make {copies}; nothing was written", self._failures)

    def _parent(self, listing: Listing, volume: str, parent: str, latest: Snapshot | None) -> Snapshot | None:
        if parent == "none":
            return None
        if parent == "auto":
            return latest
        found = listing.resolve(parent).snapshot
        if found.volume != volume:
            raise ConfigurationError(f"parent {parent} is a snapshot of volume {found.volume}, not of {volume}")
        return found

    def _draft(
        self,
        source: Source,
        volume: str,
        block_size: int | None,
        tags: Mapping[str, str],
        parent: Snapshot | None,
        latest: Snapshot | None,
        seen: int,
    ) -> Snapshot:
        """The snapshot as far as it is known before a byte is read. ``seen``: the greatest generation that this machine remembers."""
        known = parent or latest
        if known is not None and block_size not in (None, known.block_size):
            raise ConfigurationError(
                f"volume {volume} has blocks of {known.block_size} bytes, set when it was made; they cannot be {block_size} now"
            )
        return Snapshot(
            id=names.new_id(),
            volume=volume,
            generation=max(latest.generation if latest else 0, seen) + 1,
            created=objects.now(),
            size=source.size or 0,
            block_size=known.block_size if known else block_size or DEFAULT_BLOCK_SIZE,
            roots=Roots(0, None, None),
            parent=parent.id if parent else None,
            tags=dict(tags),
        )

    def _with_parent(self, draft: Snapshot, prepared: Prepared) -> Snapshot:
        return replace(draft, parent=prepared.parent.id if prepared.parent else None)


def check_volume(volume: str) -> None:
    """``ConfigurationError`` if a volume may not be called so."""
    if not VOLUME_NAME.fullmatch(volume) or len(volume) > 255:
        raise ConfigurationError(
            f"{volume!r} cannot be a volume's name: letters, digits and . _ / - only, at most 255; give one with --volume"
        )


def check_block_size(block_size: int | None) -> None:
    """``ConfigurationError`` if blocks may not be of that size."""
    if block_size is not None and (not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE or block_size & (block_size - 1)):
        raise ConfigurationError(f"a block size of {block_size} bytes is not offered: a power of two from 64 KiB to 4 MiB")
