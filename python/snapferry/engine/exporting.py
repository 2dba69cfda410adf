"""From what a caller asks of an export to what the pipeline does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from snapferry.destination import Destination
from snapferry.engine.ground import Ground
from snapferry.engine.mapping import check_map, parent_of_map
from snapferry.errors import ConfigurationError
from snapferry.pipeline.backup import Export, ExportPlan
from snapferry.pipeline.preparing import Prepared, prepare
from snapferry.pipeline.sizing import PACK_SIZE, UNLIKE_PACK_SIZE
from snapferry.pipeline.tools import Tools
from snapferry.placement import Layout, Policy, Standing, Subject, describe, lay_out
from snapferry.repository import names, objects
from snapferry.repository.failures import combined
from snapferry.repository.sessions import abandoned_on_error
from snapferry.repository.slot_keeping import bring
from snapferry.repository.snapshots import VOLUME_NAME
from snapferry.repository.survey import Survey
from snapferry.source import AnySource, ChangeMap, Source
from snapferry.transport import Limits, Manner, Spool, leftovers
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
    """One export, as ``Repository.export`` describes it.

    Arguments:
        ground: what it shares with other exports of the same command.
        side_by_side: how many exports there are to be at once, where it is known.
        limit_rate: bytes a second of this export alone.
    """

    def __init__(
        self,
        ground: Ground,
        tools: Tools,
        *,
        to: tuple[str, ...],
        policy: Policy,
        min_copies: int,
        dry_run: bool,
        skip_unreadable: bool,
        side_by_side: int | None = None,
        limit_rate: float | None = None,
    ) -> None:
        self._ground = ground
        self._membership = ground.membership
        self._memory = ground.memory
        self._tools = tools
        self._side_by_side = side_by_side
        self._limits = Limits(limit_rate)
        self._to = to
        self._policy = policy
        self._min_copies = min_copies
        self._dry_run = dry_run
        self._skip_unreadable = skip_unreadable
        self._failures: dict[str, BaseException] = {}

    async def run(
        self,
        source: AnySource,
        volume: str,
        block_size: int | None,
        parent: str,
        tags: Mapping[str, str],
        on_progress: ProgressCallback | None,
        changes: ChangeMap | None = None,
    ) -> ExportResult:
        """Exports; see ``Repository.export``."""
        check_volume(volume)
        check_block_size(block_size)
        membership = self._membership
        async with AsyncExitStack() as stack:
            # All of them, before anything is listed: a commit that was decided and has no copy yet would be missed.
            opened = {name: self._limits.limited(destination) for name, destination in (await self._open()).items()}
            self._any(opened)
            replicas = {**membership.replicas, **opened}
            known = await self._ground.survey()
            for name in [name for name in opened if name in known.failures]:
                self._failures[name] = known.failures[name]
                del opened[name]
            newest = await known.latest(membership.members.keyring, replicas, volume)
            generation = max(newest.snapshot.generation if newest else 0, await self._memory.generation(volume)) + 1
            layout = self._lay_out(volume, tags, generation, parent, known)
            destinations = {name: destination for name, destination in opened.items() if name in layout.members}
            self._enough(layout, destinations)
            # The epoch of its packs is fixed here: the destinations that take part hold the slots of this one.
            tools = self._tools if self._dry_run else await self._bring_slots(destinations)
            self._enough(layout, destinations)
            reference = newest
            if newest is not None and not set(newest.destinations) & set(layout.members):
                reference = await known.latest(membership.members.keyring, replicas, volume, among=layout.members)
            latest = reference.snapshot if reference else None
            compared = await self._parent(known, replicas, volume, parent, latest, changes)
            if changes is not None and compared is not None:
                check_map(changes, source, compared)
            damage = list(known.damage)
            before = compared or (newest.snapshot if newest else None)
            draft = self._draft(source, volume, block_size, tags, before, compared, generation, layout)
            engine = membership.config.engine
            # Waited for here, holding nothing yet: exports side by side must never lock each other up half-way.
            manners = self._manners()
            alike = all(manners[name].slow == "block" for name in self._to)
            share = await stack.enter_async_context(
                self._tools.admission.share(draft.block_size, self._side_by_side, PACK_SIZE if alike else UNLIKE_PACK_SIZE)
            )
            kept = await stack.enter_async_context(leftovers(membership.spool_root))
            prepared = await prepare(
                membership.members.keyring, destinations, membership.cache, membership.tools.threads,
                session_id=draft.id, volume=volume, parent=compared, reference=latest,
                holders=reference.destinations if reference else (), layout=layout, min_copies=self._min_copies,
                known_bad=await self._memory.bad_packs(),
                presence_at=self._ground.presence, dry_run=self._dry_run,
            )  # fmt: skip
            self._failures.update(prepared.failures)
            damage += prepared.damage
            async with abandoned_on_error(prepared.sessions.values()):
                plan = ExportPlan(
                    self._with_parent(draft, prepared), prepared.parent, self._min_copies,
                    codec=engine.codec, level=engine.level, check=engine.check_built,
                    skip_unreadable=self._skip_unreadable, dry_run=self._dry_run, changes=changes,
                    parent_packs=await self._packs_of(prepared.parent) if changes else None, manners=manners,
                )  # fmt: skip
            spool = await stack.enter_async_context(Spool(membership.spool_root, engine.spool_size))
            export = Export(
                plan, source, prepared, share, replicas, membership.cache, tools,
                order=layout.members, failures=self._failures, spool=spool, leftovers=tuple(kept.sources.values()), on_progress=on_progress,
            )  # fmt: skip
            result = await export.run()
            if not result.behind and membership.spooled_for().issubset(layout.members):
                # All that was ever spooled for is up to date.
                await kept.discard()
        if not self._dry_run:
            await self._memory.note_snapshot(result.snapshot, result.acknowledged)
            if export.packs is not None:
                sets, made = membership.pack_sets, result.snapshot
                await membership.tools.threads.run(sets.store, volume, made.id, export.packs, keep=made.parent)
        await self._memory.note_damage(damage + export.damage)
        return result

    def _manners(self) -> dict[str, Manner]:
        return {place.name: Manner(place.slow, place.patience) for place in self._membership.config.destinations}

    async def _open(self) -> dict[str, Destination]:
        """The destinations that can take part; a dry run only reads them."""
        if self._dry_run:
            failures = {**self._membership.members.unwritable, **self._membership.members.failures}
            self._failures.update({name: failures[name] for name in self._to if name in failures})
            return {name: self._membership.replicas[name] for name in self._to if name not in failures}
        opened, failures_here = await self._ground.writable(self._to)
        self._failures.update(failures_here)
        return opened

    async def _bring_slots(self, destinations: dict[str, Destination]) -> Tools:
        """Every key slot that counts, to every destination that takes part; the tools with the keys to write with there."""
        keyring, failures = await bring(self._membership.members, destinations)
        for name, problem in failures.items():
            self._failures[name] = problem
            del destinations[name]
        return replace(self._tools, keyring=keyring)

    def _any(self, destinations: Mapping[str, Destination]) -> None:
        if not destinations:
            raise combined("no destination can be used; nothing was written", self._failures)

    def _lay_out(self, volume: str, tags: Mapping[str, str], generation: int, parent: str, known: Survey) -> Layout:
        """Where this snapshot goes. What it is called depends on no clock and no failure, so it is the same when it is run again."""
        held = any(self._held_here(summary.id, known) for summary in known.newest_first(volume))
        subject = Subject(volume, generation - 1, tags, full=parent == "none" or not held, inherits=held)
        return lay_out(self._policy, self._membership.config.sites(self._to), subject)

    def _held_here(self, snapshot_id: str, known: Survey) -> bool:
        return not set(known.holders(snapshot_id)).isdisjoint(self._to)

    def _enough(self, layout: Layout, destinations: Mapping[str, Destination]) -> None:
        standing = Standing(layout, frozenset(layout.members) - destinations.keys(), frozenset(), self._min_copies)
        short = standing.short(frozenset(), [group.share for group in layout.groups])
        if short:
            copies = "1 copy" if self._min_copies == 1 else f"{self._min_copies} copies"
            of = "; ".join(group.why for group in layout.groups if group.why and group.share in short)
            failures = {name: error for name, error in self._failures.items() if name in layout.members}
            raise combined(
                f"too few destinations can be used to make {copies}{of and f' of what goes by {of}'}; nothing was written", failures
            )

    async def _packs_of(self, snapshot: Snapshot | None) -> bytes | None:
        """What this machine knows of the packs that a snapshot names."""
        if snapshot is None:
            return None
        return await self._membership.tools.threads.run(self._membership.pack_sets.load, snapshot.volume, snapshot.id)

    async def _parent(
        self,
        known: Survey,
        replicas: Mapping[str, Destination],
        volume: str,
        parent: str,
        latest: Snapshot | None,
        changes: ChangeMap | None,
    ) -> Snapshot | None:
        if changes is not None:
            find = partial(known.find, self._membership.members.keyring, replicas)
            return await parent_of_map(changes, find, volume, parent)
        if parent == "none":
            return None
        if parent == "auto":
            return latest
        found = (await known.find(self._membership.members.keyring, replicas, parent)).snapshot
        if found.volume != volume:
            raise ConfigurationError(f"parent {parent} is a snapshot of volume {found.volume}, not of {volume}")
        return found

    def _draft(
        self,
        source: AnySource,
        volume: str,
        block_size: int | None,
        tags: Mapping[str, str],
        known: Snapshot | None,
        parent: Snapshot | None,
        generation: int,
        layout: Layout,
    ) -> Snapshot:
        """The snapshot as far as it is known before a byte is read. ``known``: one of the same volume."""
        if known is not None and block_size not in (None, known.block_size):
            raise ConfigurationError(
                f"volume {volume} has blocks of {known.block_size} bytes, set when it was made; they cannot be {block_size} now"
            )
        return Snapshot(
            id=names.new_id(),
            volume=volume,
            generation=generation,
            created=objects.now(),
            size=source.size if isinstance(source, Source) else 0,
            block_size=known.block_size if known else block_size or DEFAULT_BLOCK_SIZE,
            roots=Roots(0, None, None),
            parent=parent.id if parent else None,
            tags=dict(tags),
            placement=describe(layout),
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
