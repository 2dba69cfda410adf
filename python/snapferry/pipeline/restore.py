"""A restore: windows of the volume, each a plan of ranged reads; verified blocks are written out of order; what is lost is listed whole.

A block is written only after its tag and its id were verified. Everything that some replica can supply is restored before the loss of
the rest is reported, so that one run tells all there is to tell.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ConfigurationError, DamageError
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.convert import open_manifest
from snapferry.pipeline.extent_reader import ExtentReader, IndexOpener
from snapferry.pipeline.extents import block_count, clipped, describe, merged, total
from snapferry.pipeline.fetching import Fetcher
from snapferry.pipeline.journal import Journal
from snapferry.pipeline.leavings import Leavings
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.sizing import read_sizing
from snapferry.pipeline.target import Target, check, look, target_error
from snapferry.pipeline.tools import Tools
from snapferry.pipeline.windows import SMALL, Window, windows
from snapferry.repository.gathering import task_group
from snapferry.types import Damage, Progress, ProgressCallback, RestoreResult, Snapshot

_WINDOWS_AT_ONCE = 2
_COMPARED = 256
"""Blocks a window where an existing target is compared first, so that one call takes tens of milliseconds."""

_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a restore is to do.

    Attributes:
        journals: directory of the journals.
        extent: (start, end) in bytes of the part to restore, at its place in the target; None for all.
    """

    snapshot: Snapshot
    target: str | os.PathLike[str]
    journals: Path
    extent: tuple[int, int] | None = None
    force: bool = False
    best_effort: bool = False
    dry_run: bool = False


class Restore:
    """One run of one restore.

    Arguments:
        replicas: destinations to read from, by name; ``first`` are those that hold the commit.
        costs, lists: as ``Fetcher``.
        open_index: as ``ExtentReader``.
    """

    def __init__(
        self,
        plan: RestorePlan,
        replicas: Mapping[str, Destination],
        first: tuple[str, ...],
        tools: Tools,
        open_index: IndexOpener,
        *,
        costs: Mapping[str, float] = MappingProxyType({}),
        lists: Mapping[str, Collection[bytes]] = MappingProxyType({}),
        on_progress: ProgressCallback | None = None,
    ) -> None:
        self._plan = plan
        self._snapshot = plan.snapshot
        self._tools = tools
        self._fetcher = Fetcher(replicas, tools.board, first, costs, lists)
        self._open_index = open_index
        self._on_progress = on_progress
        self._start, self._end = self._part()
        self._lost: list[tuple[int, int]] = []
        self._unreadable: list[tuple[int, int]] = []
        self._written = 0
        self._counting = threading.Lock()
        self._done = 0
        self._partly: dict[int, int] = {}
        self._told = 0.0

    def _part(self) -> tuple[int, int]:
        size = self._snapshot.size
        start, end = self._plan.extent or (0, size)
        if not 0 <= start <= end <= size:
            raise ConfigurationError(f"the range {start}-{end} does not lie in the volume of {size} bytes")
        return start, end

    @property
    def damage(self) -> tuple[Damage, ...]:
        """Objects found missing or broken on the way."""
        return tuple(self._fetcher.damage)

    async def run(self) -> RestoreResult:
        """Restores; see ``Repository.restore`` for what is raised."""
        begun = time.monotonic()
        plan, snapshot, threads = self._plan, self._snapshot, self._tools.threads
        whole = plan.extent is None
        found = await threads.run(look, plan.target)
        journal = Journal(plan.journals, found.path)
        await threads.run(check, found, self._end, snapshot.id, journal, force=plan.force, whole=whole)
        if plan.dry_run:
            return self._result(begun)
        sizing = read_sizing(self._tools.budget.total, snapshot.block_size, self._tools.workers.threads)
        opened: list[Target] = []
        async with BufferPool(self._tools.budget, sizing.extent, sizing.most, sizing.spares) as pool, Leavings() as leavings:
            self._fetcher.leave_to(leavings)
            try:
                await threads.run(lambda: opened.append(Target(found, self._end, snapshot.id, journal, whole=whole)))
                await self._fill(opened[0], pool, sizing.extent)
                await threads.run(opened[0].sync)
            finally:
                for target in opened:
                    target.close()
            self._tell(last=True)
        if self._lost and not plan.best_effort:
            lost = merged(self._lost)
            raise DamageError(
                f"snapshot {snapshot.id}: no replica can supply {total(lost)} bytes at {describe(lost)}; everything else is in {found.path}."
                " Run it again when a good replica is back, or with --best-effort to accept the loss",
                lost,
            )
        return self._result(begun)

    async def _fill(self, target: Target, pool: BufferPool, extent: int) -> None:
        tools, snapshot = self._tools, self._snapshot
        manifest = open_manifest(tools.keyring, snapshot)
        loader = PageLoader(self._fetcher, tools.threads)
        gate = asyncio.Semaphore(_WINDOWS_AT_ONCE)
        width = SMALL if target.fresh else _COMPARED
        async with task_group() as group:
            reader = ExtentReader(self._fetcher, pool, tools, self._open_index, self._tell)
            for first, end in self._pieces():
                async for window in windows(manifest, loader, tools.threads, first, end, width=width):
                    if window.zeros:
                        await self._zero(target, *self._bytes_of(window))
                        self._advance(window)
                        continue
                    await gate.acquire()
                    try:
                        plan = await tools.threads.run(_core.Plan, tools.keyring, tools.workers, manifest, window.first, window.end, extent)
                    except BaseException:
                        gate.release()
                        raise
                    group.create_task(self._window(window, plan, target, reader, gate))

    def _pieces(self) -> list[tuple[int, int]]:
        """(first, end) of blocks: what is wanted, with blocks that are wanted in part by themselves."""
        size = self._snapshot.block_size
        first, end = self._start // size, block_count(self._end, size)
        cuts = {first, end}
        if self._start % size:
            cuts.add(first + 1)
        if self._end % size and self._end != self._snapshot.size:
            cuts.add(end - 1)
        edges = sorted(cuts)
        return [(low, high) for low, high in itertools.pairwise(edges) if low < high]

    async def _window(self, window: Window, plan: _core.Plan, target: Target, reader: ExtentReader, gate: asyncio.Semaphore) -> None:
        try:
            for offset, length in self._inside(plan.zeros()):
                await self._zero(target, offset, length)
            for offset, length in self._inside(plan.unreadable()):
                # They read as zeros whatever the target held, and are reported; so every restore of a snapshot is the same.
                await self._zero(target, offset, length)
                self._unreadable.append((offset, length))
            if self._cut(window):
                await self._edges(window, plan, target, reader)
            else:
                if not target.fresh:
                    await self._tools.threads.run(self._compare, plan, target)
                await reader.deliver(plan, lambda number, data: self._write(plan, target, window, number, data))
            self._lost += self._inside(plan.lost())
        finally:
            gate.release()
        self._advance(window)

    def _write(self, plan: _core.Plan, target: Target, window: Window, number: int, data: memoryview) -> int:
        try:
            written, failed = plan.write(number, data, target.fd)
        except OSError as error:
            raise target_error(target.path, error) from error
        self._count(written)
        with self._counting:
            self._partly[window.first] = self._partly.get(window.first, 0) + written
        return failed

    def _compare(self, plan: _core.Plan, target: Target) -> None:
        try:
            plan.compare(target.fd)
        except OSError as error:
            raise target_error(target.path, error) from error

    async def _edges(self, window: Window, plan: _core.Plan, target: Target, reader: ExtentReader) -> None:
        """A window that the wanted range cuts in the middle of a block: brought into memory, and only the range is written."""
        low, length = self._bytes_of(window)
        out = bytearray(length)
        await reader.deliver(plan, lambda number, data: plan.copy(number, data, out, low))
        holes = merged([*plan.zeros(), *plan.unreadable(), *plan.lost()])
        for offset, count in _gaps(holes, low, low + length):
            await self._tools.threads.run(self._pwrite, target, memoryview(out)[offset - low : offset - low + count], offset)

    def _pwrite(self, target: Target, data: memoryview, offset: int) -> None:
        try:
            while data:
                count = os.pwrite(target.fd, data, offset)
                self._count(count)
                offset += count
                data = data[count:]
        except OSError as error:
            raise target_error(target.path, error) from error

    async def _zero(self, target: Target, offset: int, length: int) -> None:
        if not target.fresh:
            self._count(await self._tools.threads.run(target.zero, offset, length))

    def _count(self, written: int) -> None:
        with self._counting:
            self._written += written

    def _bytes_of(self, window: Window) -> tuple[int, int]:
        """(offset, length) of the part of a window that is wanted."""
        low = max(window.first * self._snapshot.block_size, self._start)
        return low, min(window.end * self._snapshot.block_size, self._end) - low

    def _cut(self, window: Window) -> bool:
        size = self._snapshot.block_size
        whole_end = min(window.end * size, self._snapshot.size)
        return self._start > window.first * size or self._end < whole_end

    def _inside(self, extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return clipped(extents, self._start, self._end)

    def _advance(self, window: Window) -> None:
        with self._counting:
            self._partly.pop(window.first, None)
            self._done += self._bytes_of(window)[1]
        self._tell()

    def _tell(self, *, last: bool = False) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        if last or now - self._told >= _PROGRESS_SECONDS:
            self._told = now
            subject = os.fspath(self._plan.target)
            wanted, fetcher = self._end - self._start, self._fetcher
            with self._counting:
                done = self._done + sum(self._partly.values())
            self._on_progress(Progress("restore", subject, done, wanted, fetcher.fetched, fetcher.channels()))

    def _result(self, begun: float) -> RestoreResult:
        return RestoreResult(
            snapshot=self._snapshot.id,
            size=self._end - self._start,
            bytes_written=self._written,
            bytes_fetched=self._fetcher.fetched,
            hedged=self._fetcher.hedges.count,
            hedged_bytes=self._fetcher.hedges.hedged,
            failovers=self._fetcher.failovers,
            seconds=time.monotonic() - begun,
            damage=self.damage,
            lost=merged(self._lost),
            unreadable=merged(self._unreadable),
        )


def _gaps(holes: tuple[tuple[int, int], ...], low: int, high: int) -> list[tuple[int, int]]:
    """What lies between ``low`` and ``high`` and in none of the ``holes`` (sorted, apart)."""
    out = []
    at = low
    for offset, length in clipped(holes, low, high):
        if offset > at:
            out.append((at, offset - at))
        at = offset + length
    if at < high:
        out.append((at, high - at))
    return out
