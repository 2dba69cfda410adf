"""An export: one pass over the source, every pack to all destinations at once, and a commit when enough of them hold everything.

Order (docs/format.md): data packs and early manifest packs, with index segments after the packs they name; the last segment; the last
manifest packs; ``sessions/<id>/end``; ``snapshots/<id>``. At each destination each kind is acknowledged before the next is begun there, and no
commit is begun before there are ``min_copies`` of everything. A destination that failed gets nothing more; one that was behind gets copies first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationUnreachable, SnapferryError
from snapferry.pipeline.admission import Share
from snapferry.pipeline.committing import Committing
from snapferry.pipeline.convert import open_manifest, roots_from_core
from snapferry.pipeline.extents import block_count, merged
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.mapped import Mapped
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.preparing import Prepared
from snapferry.pipeline.reading import Reader
from snapferry.pipeline.room import Room
from snapferry.pipeline.segments import SECONDS, SegmentWriter
from snapferry.pipeline.sending import Sender
from snapferry.pipeline.sizing import PACK_SIZE
from snapferry.pipeline.steps import MapUnusable, Step
from snapferry.pipeline.tools import Tools
from snapferry.repository.failures import combined
from snapferry.repository.gathering import task_group
from snapferry.repository.index_cache import IndexCache
from snapferry.repository.sessions import BEAT_SECONDS, abandon, beating
from snapferry.source import AnySource, ChangeMap, Source
from snapferry.transport import FanOut, Manner, Spool, TooFewCopies
from snapferry.types import Damage, ExportResult, Progress, ProgressCallback, Snapshot

ADVANCE = 4096
"""Blocks that are recorded before their pages are built."""

_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export is to do, decided by its caller.

    Attributes:
        snapshot: as its commit will be, but for the roots and what is counted.
        parent: what it is compared with.
        codec, level, check: as the packer takes them.
        changes: a map of what changed since ``parent``, and ``parent_packs``: what packs that names, if this machine knows.
        manners: by name, what is done where a destination is slow.
        beat_seconds, segment_seconds: the pace of signs of life and of index segments.
    """

    snapshot: Snapshot
    parent: Snapshot | None
    min_copies: int
    codec: str = "zstd"
    level: int = 1
    check: str = "full"
    skip_unreadable: bool = False
    dry_run: bool = False
    changes: ChangeMap | None = None
    parent_packs: bytes | None = None
    manners: Mapping[str, Manner] = field(default_factory=dict)
    beat_seconds: float = BEAT_SECONDS
    segment_seconds: float = SECONDS


@dataclass(slots=True)
class _Counts:
    bytes_new: int = 0
    blocks_new: int = 0
    blocks_zero: int = 0
    bytes_read: int = 0


class Export:
    """One run of one export.

    Arguments:
        prepared: sessions begun, packs listed, index loaded (see ``preparing``).
        share: of the budget, for all that is read and packed.
        replicas: destinations to read the parent's pages and packs for copies from, by name.
        order: all names that were asked for, for the result.
        failures: destinations that could not even begin.
        spool: where packs go for destinations that are to be spooled for.
        leftovers: stores on this machine to copy packs from before any replica is asked.

    Attributes:
        packs: after ``run``, ids of all packs that the snapshot's trees name, perhaps of some more; None after a dry run.
    """

    def __init__(
        self,
        plan: ExportPlan,
        source: AnySource,
        prepared: Prepared,
        share: Share,
        replicas: dict[str, Destination],
        cache: IndexCache,
        tools: Tools,
        *,
        order: tuple[str, ...],
        failures: dict[str, BaseException],
        spool: Spool | None = None,
        leftovers: Sequence[Destination] = (),
        on_progress: ProgressCallback | None = None,
    ) -> None:
        self._plan = plan
        self._source = source
        self._prepared = prepared
        self._cache = cache
        self._tools = replace(tools, budget=share.budget)
        # Whole packs are copied: where the share is smaller than they are, out of the whole budget.
        self._copying = self._tools if share.budget.total >= 2 * PACK_SIZE else tools
        self._sizing = share.sizing
        self._order = order
        self._failures = failures
        self._spool = spool
        self._leftovers = leftovers
        self._on_progress = on_progress
        self._block_size = plan.snapshot.block_size
        self._mapped: Mapped | None = None
        if plan.changes is not None and isinstance(source, Source):
            self._mapped = Mapped(
                plan.changes, source, prepared.parent, plan.parent_packs, self._tools, skip_unreadable=plan.skip_unreadable
            )
        self._fetcher = Fetcher(replicas, tools.board, first=prepared.up_to_date)
        self._counts = _Counts()
        self._advancing = asyncio.Lock()
        self._advanced = 0
        self._told = 0.0
        self.packs: bytes | None = None
        self._committing: Committing | None = None

    @property
    def damage(self) -> list[Damage]:
        """Objects found missing or broken on the way."""
        return self._fetcher.damage

    async def run(self) -> ExportResult:
        """Exports; see ``Repository.export`` for what is raised."""
        begun = time.monotonic()
        try:
            return await self._run(begun)
        except TooFewCopies as error:
            # Told with every destination's reason, those included that could not even begin.
            raise self._too_few({**self._failures, **error.failures}, 0) from error

    def _too_few(self, failures: dict[str, BaseException], made: int) -> SnapferryError:
        copies = "1 copy" if self._plan.min_copies == 1 else f"{self._plan.min_copies} copies"
        state = (
            f"; {made} made, and what was begun is listed and completed by the next export"
            if self._committing is not None and self._committing.begun
            else "; nothing was committed"
        )
        of = self._prepared.why_short(self._fanout.alive)
        return combined(f"too few destinations are left to make {copies}{of}{state}", failures)

    async def _run(self, begun: float) -> ExportResult:
        async with self._open_fanout() as fanout:
            self._fanout = fanout
            self._sender = Sender(fanout, self._tools.budget, self._prepared.standing.layout)
            self._committing = Committing(self._prepared, fanout, self._sender.sent, self._copying, self._leftovers)
            try:
                async with self._beating(fanout):
                    snapshot = await self._make(fanout)
                    if self._plan.dry_run:
                        return self._result(snapshot, set(), begun)
                    async with self._telling(snapshot.size):
                        acknowledged = await self._committing.run(snapshot)
                    self._failures.update(fanout.failed)
                    result = self._result(snapshot, acknowledged, begun)
                    if self._prepared.short(acknowledged):
                        raise self._too_few(result.failures, len(result.acknowledged))
                    return result
            finally:
                # Where it failed too: a prune there would wait for a session that nobody ends.
                await self._abandon()

    def _open_fanout(self) -> FanOut:
        if self._plan.dry_run:
            return FanOut([], needed=0)
        manners, prepared = self._plan.manners, self._prepared
        absent = {
            name: error
            for name, error in self._failures.items()
            if name in manners and manners[name].slow == "spool" and isinstance(error, DestinationUnreachable)
        }
        return FanOut(
            list(prepared.destinations.values()), needed=self._plan.min_copies, enough=lambda alive: not prepared.short(alive),
            manners=manners, absent=absent, budget=self._tools.budget, spool=self._spool,
        )  # fmt: skip

    def _beating(self, fanout: FanOut) -> AbstractAsyncContextManager[None]:
        """Signs of life at every destination; a fenced session counts as a failed destination."""
        sessions = {} if self._plan.dry_run else self._prepared.sessions
        for name, session in sessions.items():
            session.relies_on = partial(self._relies_on, name)
        return beating(sessions, self._plan.beat_seconds, fanout.fail)

    def _relies_on(self, name: str, packs: frozenset[bytes]) -> bool:
        """Whether any of these packs may be built on at a destination: it was listed there before, or its sending has begun.

        A destination that is behind relies on all of them: what catch-up copies, or finds in place, was in no listing.
        """
        if name not in self._prepared.up_to_date:
            return bool(packs)
        return not packs.isdisjoint(self._prepared.presence.packs.get(name, {})) or not packs.isdisjoint(self._sender.sent)

    async def _make(self, fanout: FanOut) -> Snapshot:
        """Everything up to the commit: reads, sends, and returns the snapshot as it is to be committed."""
        plan, tools = self._plan, self._tools
        await fanout.drain()  # Raises if there are too few before anything was read.
        mapped = self._mapped if self._mapped and await self._mapped.begin(self._fetcher, self._sizing) else None
        try:
            reader, writer = await self._scan(fanout, mapped)
        except MapUnusable as error:
            assert mapped is not None
            mapped.refuse(str(error))
            mapped = None
            reader, writer = await self._scan(fanout, None)
        counts = self._counts
        counts.blocks_zero += mapped.blocks_zero if mapped else reader.blocks - reader.blocks_read
        snapshot = replace(plan.snapshot, size=reader.size, bytes_new=counts.bytes_new, unreadable=merged(reader.unreadable))
        if plan.dry_run:
            return snapshot
        await self._sender.manifest(await tools.threads.run(writer.advance, reader.blocks))
        roots, packs = await tools.threads.run(writer.finish)
        await self._segments.flush()
        await self._sender.manifest(packs, after=fanout.mark())
        del packs
        written = await tools.threads.run(writer.packs)
        self.packs = mapped.packs(written) if mapped else written
        self._tell(reader.size, last=True)
        return replace(snapshot, roots=roots_from_core(roots))

    async def _scan(self, fanout: FanOut, mapped: Mapped | None) -> tuple[Reader, _core.ManifestWriter]:
        """Goes over the source once and sends its packs. Raises ``MapUnusable`` where it has to be gone over without the map."""
        plan, tools = self._plan, self._tools
        session = bytes.fromhex(plan.snapshot.id)
        index = self._prepared.loaded.index
        parent = self._parent_manifest()
        source = self._source
        areas = self._prepared.standing.layout.areas(self._block_size)
        writer = _core.ManifestWriter(
            tools.keyring, tools.workers, index, session=session, size=source.size if isinstance(source, Source) else None,
            block_size=self._block_size, parent=parent[0] if parent else None, check=plan.check, areas=areas,
        )  # fmt: skip
        packer = _core.Packer(
            tools.keyring, tools.workers, index, writer,
            session=session, codec=plan.codec, level=plan.level, check=plan.check, dry_run=plan.dry_run,
        )  # fmt: skip
        room = Room(packer, tools.budget, self._sizing)
        segments = SegmentWriter(packer, index, self._cache, fanout, tools.threads, seconds=plan.segment_seconds)
        reader = Reader(
            source, self._block_size, packer, writer, tools, self._sizing,
            room=None if plan.dry_run else room, parent=None if mapped else parent, skip_unreadable=plan.skip_unreadable,
            cuts=[first for first, _ in areas[1:]],
            on_packs=lambda packs: self._sender.data(packs, room, segments),
            on_watermark=lambda: self._advance(writer, reader),
        )  # fmt: skip
        self._segments, self._advanced = segments, 0
        steps = mapped.steps(*parent, packer, None if plan.dry_run else writer, index) if mapped and parent else None
        try:
            async with task_group() as group:
                group.create_task(segments.run())
                try:
                    await self._read(reader, steps, fanout, packer, room)
                finally:
                    segments.close()
        finally:
            room.close()
        return reader, writer

    async def _read(
        self, reader: Reader, steps: AsyncGenerator[Step, None] | None, fanout: FanOut, packer: _core.Packer, room: Room
    ) -> None:
        threads, source = self._tools.threads, self._source
        try:
            await reader.run(steps)
            if isinstance(source, Source):
                await threads.run(source.check_unchanged)
        except MapUnusable:
            # What was read is not read in vain: the next pass finds it in the index.
            await self._sender.data(await threads.run(packer.finish), room, self._segments)
            await fanout.drain()
            await self._segments.flush()
            raise
        finally:
            counts, (bytes_new, blocks_new, zeros, _) = self._counts, packer.counts()
            counts.bytes_new += bytes_new
            counts.blocks_new += blocks_new
            counts.blocks_zero = zeros
            counts.bytes_read += reader.bytes_read
        await self._sender.data(await threads.run(packer.finish), room, self._segments)

    def _parent_manifest(self) -> tuple[_core.Manifest, PageLoader] | None:
        parent = self._prepared.parent
        if parent is None:
            return None
        return open_manifest(self._tools.keyring, parent), PageLoader(self._fetcher, self._tools.threads, patient=True)

    async def _advance(self, writer: _core.ManifestWriter, reader: Reader) -> None:
        if reader.watermark - self._advanced >= ADVANCE and not self._advancing.locked():
            async with self._advancing:
                until = reader.watermark
                packs = await self._tools.threads.run(writer.advance, until)
                self._advanced = until
                if self._plan.dry_run:
                    packs.clear()
                await self._sender.manifest(packs)
        self._tell(reader.position)

    async def _abandon(self) -> None:
        committed = self._committing.begun if self._committing else ()
        await abandon(session for name, session in self._prepared.sessions.items() if name not in committed)

    def _result(self, snapshot: Snapshot, acknowledged: AbstractSet[str], begun: float) -> ExportResult:
        counts = self._counts
        copied = self._committing.bytes_copied if self._committing else {}
        sent = {
            name: count + copied.get(name, 0) + self._prepared.sessions[name].bytes_sent for name, count in self._fanout.bytes_sent.items()
        }
        behind = () if self._plan.dry_run else tuple(name for name in self._order if name not in acknowledged)
        return ExportResult(
            snapshot=snapshot,
            bytes_read=counts.bytes_read + (self._mapped.bytes_read if self._mapped else 0),
            bytes_new=counts.bytes_new,
            bytes_sent={name: sent.get(name, 0) for name in self._order},
            blocks_total=block_count(snapshot.size, self._block_size),
            blocks_new=counts.blocks_new,
            blocks_zero=counts.blocks_zero,
            acknowledged=tuple(name for name in self._order if name in acknowledged),
            behind=behind,
            failures={name: self._failures[name] for name in behind if name in self._failures},
            seconds=time.monotonic() - begun,
            dry_run=self._plan.dry_run,
            map=self._mapped.use if self._mapped else None,
            cost_gb=self._prepared.standing.layout.cost,
        )

    def _tell(self, done: int, *, last: bool = False) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        if last or now - self._told >= _PROGRESS_SECONDS:
            self._told = now
            total = self._source.size if isinstance(self._source, Source) else None
            self._on_progress(
                Progress("export", self._plan.snapshot.volume, done, total, self._fanout.bytes_sent, self._fanout.statistics())
            )

    @asynccontextmanager
    async def _telling(self, done: int) -> AsyncIterator[None]:
        """Tells now and then how the destinations stand while the block runs, and once more at its end."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(_PROGRESS_SECONDS)
                self._tell(done)
                if any(channel.state == "spooling" for channel in self._fanout.statistics().values()):
                    # What comes back from the disk has buffers of its own.
                    self._tools.workers.trim()

        telling = asyncio.create_task(tell())
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait({telling})
        self._tell(done, last=True)
