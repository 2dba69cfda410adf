"""Whether a map of changes tells the truth, by sample: blocks that it says nothing of are read all the same, and compared with the parent's.

A map comes from another system, and what it leaves out is never read again: a snapshot made from a wrong one would be wrong for good.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from snapferry import _core
from snapferry.errors import SourceReadError
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.changes import BlockChanges, Run, audit_sample, pieces
from snapferry.pipeline.extents import total
from snapferry.pipeline.pages import PageLoader
from snapferry.pipeline.sizing import ExportSizing
from snapferry.pipeline.steps import MapUnusable
from snapferry.pipeline.tools import Tools
from snapferry.repository.gathering import task_group
from snapferry.source import Source

_RUNS_AT_ONCE = 64


@dataclass(slots=True)
class Audited:
    """``blocks`` and ``bytes`` that were read and compared."""

    blocks: int = 0
    bytes: int = 0


class Audit:
    """One audit of one map.

    Arguments:
        manifest: the parent's, for this audit alone: its pages are forgotten on the way.
        skip_unreadable: pass over blocks that cannot be read; else they end the export.
        dice: draws the sample; nobody may be able to foresee it.
    """

    def __init__(
        self,
        source: Source,
        block_size: int,
        manifest: _core.Manifest,
        loader: PageLoader,
        tools: Tools,
        sizing: ExportSizing,
        *,
        skip_unreadable: bool,
        dice: random.Random | None = None,
    ) -> None:
        self._source = source
        self._block_size = block_size
        self._manifest = manifest
        self._loader = loader
        self._tools = tools
        self._sizing = sizing
        self._skip_unreadable = skip_unreadable
        self._dice = dice or random.SystemRandom()
        self.audited = Audited()

    async def run(self, changes: BlockChanges) -> None:
        """Compares a sample of what is said to be unchanged, and of what is said to be zeros.

        Raises:
            MapUnusable: a block is not what the map says, or cannot be compared. SourceError: a block cannot be read.
        """
        kept = pieces(audit_sample(changes.kept, self._dice), self._sizing.batch)
        zeros = pieces(audit_sample(changes.zeros, self._dice), self._sizing.batch)
        size = self._sizing.batch * self._block_size
        async with BufferPool(self._tools.budget, size, self._sizing.readers) as pool:
            while group := list(itertools.islice(kept, _RUNS_AT_ONCE)):
                lost = self._loader.lost
                await self._loader.load_runs(self._manifest, group, places=False)
                if self._loader.lost > lost:
                    raise MapUnusable("pages of the parent's manifest are damaged on every destination that has them")
                await self._compare_all(group, pool, unchanged=True)
                await self._tools.threads.run(self._manifest.evict, sum(group[-1]))
            while group := list(itertools.islice(zeros, _RUNS_AT_ONCE)):
                await self._compare_all(group, pool, unchanged=False)

    async def _compare_all(self, runs: list[Run], pool: BufferPool, *, unchanged: bool) -> None:
        async with task_group() as group:
            for run in runs:
                buffer = await pool.acquire()
                group.create_task(self._compare(run, buffer, pool, unchanged=unchanged))

    async def _compare(self, run: Run, buffer: memoryview, pool: BufferPool, *, unchanged: bool) -> None:
        first, count = run
        offset = first * self._block_size
        data = buffer[: min(count * self._block_size, self._source.size - offset)]
        try:
            wrong = await self._tools.threads.run(self._read_and_compare, first, data, unchanged=unchanged)
        except SourceReadError:
            if not self._skip_unreadable:
                raise
            return
        finally:
            pool.release(buffer)
        self.audited.blocks += count
        self.audited.bytes += len(data)
        if wrong:
            said = "unchanged" if unchanged else "zeros"
            raise MapUnusable(
                f"{total(wrong)} of {self.audited.blocks} blocks read to audit it are not {said}, as it says: "
                f"the first at byte {wrong[0][0] * self._block_size}"
            )

    def _read_and_compare(self, first: int, data: memoryview, *, unchanged: bool) -> list[Run]:
        self._source.read_into(first * self._block_size, data)
        if unchanged:
            return self._manifest.differing(self._tools.workers, first, data)
        return [(first, 1)] if bytes(data).strip(b"\0") else []
