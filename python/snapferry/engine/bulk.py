"""Many exports side by side in one process. Each has its own threads and its own share of the budget; what ends one leaves the others alone."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from snapferry.config import Config
from snapferry.engine.exporting import Exporting, check_block_size, check_volume
from snapferry.engine.ground import Ground
from snapferry.engine.mapping import given_map
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.values import BulkResult, ExportJob, JobOutcome
from snapferry.errors import ConfigurationError, SourceError
from snapferry.pipeline.tools import make_threads
from snapferry.repository.gathering import task_group
from snapferry.source import AnySource, open_source
from snapferry.source.opening import STANDARD_INPUT
from snapferry.types import ExportResult, ProgressCallback

PARALLEL = 4
"""How many sources are exported at once unless it is said."""


def check_jobs(config: Config, jobs: Sequence[ExportJob]) -> None:
    """``ConfigurationError`` unless every job could be started: names of volumes, none of them twice, destinations, copies, block sizes."""
    taken: dict[str, ExportJob] = {}
    if sum(isinstance(job.source, (str, os.PathLike)) and os.fspath(job.source) == STANDARD_INPUT for job in jobs) > 1:
        raise ConfigurationError("standard input is named twice, and can be read once")
    for job in jobs:
        volume = job.volume_name
        if not volume:
            raise ConfigurationError(f"source {job.source_name} has no name of its own: a volume must be named for it")
        check_volume(volume)
        check_block_size(job.block_size)
        config.placing(config.names_of(job.to), volume, job.placement, job.min_copies)
        if volume in taken:
            raise ConfigurationError(
                f"volume {volume} is exported twice, from {taken[volume].source_name} and from {job.source_name};"
                " a volume's name is its source's file name unless another is given, with --volume or in a jobs file"
            )
        taken[volume] = job


def check_sources(jobs: Sequence[ExportJob]) -> None:
    """``SourceError`` naming every source that cannot be opened. Standard input and FIFOs are not looked at: that would use them up."""
    problems: list[SourceError] = []
    for job in jobs:
        if not isinstance(job.source, (str, os.PathLike)) or job.source_name == STANDARD_INPUT or _is_fifo(job.source):
            continue
        try:
            open_source(job.source).close()
        except SourceError as error:
            problems.append(error)
    if problems:
        raise SourceError(f"nothing was started: {'; '.join(map(str, problems))}")


def _is_fifo(path: str | os.PathLike[str]) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


class Bulk:
    """One run of several exports; see ``Repository.export_many``."""

    def __init__(
        self,
        config: Config,
        membership: Membership,
        memory: Memory,
        jobs: Sequence[ExportJob],
        parallel: int | None,
        dry_run: bool,
        on_progress: ProgressCallback | None,
        on_result: Callable[[JobOutcome], object] | None,
    ) -> None:
        if parallel is not None and parallel < 1:
            raise ConfigurationError(f"{parallel} exports at once are none")
        check_jobs(config, jobs)
        self._config = config
        self._membership = membership
        self._ground = Ground(membership, memory)
        self._jobs = jobs
        self._parallel = min(parallel or PARALLEL, len(jobs))
        self._dry_run = dry_run
        self._on_progress = on_progress
        self._on_result = on_result
        self._outcomes: dict[int, JobOutcome] = {}

    async def run(self) -> BulkResult:
        """Exports all; raises only for what concerns all."""
        begun = time.monotonic()
        queue = iter(enumerate(self._jobs))
        async with self._ground, task_group() as group:
            for _ in range(self._parallel):
                group.create_task(self._work(queue))
        return BulkResult(tuple(self._outcomes[number] for number in range(len(self._jobs))), time.monotonic() - begun)

    async def _work(self, queue: Iterator[tuple[int, ExportJob]]) -> None:
        for number, job in queue:
            outcome = await self._one(job)
            self._outcomes[number] = outcome
            if self._on_result is not None:
                self._on_result(outcome)

    async def _one(self, job: ExportJob) -> JobOutcome:
        try:
            return JobOutcome(job, result=await self._export(job))
        except Exception as error:  # noqa: BLE001 - whatever ends one export is the failure of that one
            return JobOutcome(job, error=error)

    async def _export(self, job: ExportJob) -> ExportResult:
        names = self._config.names_of(job.to)
        policy, copies = self._config.placing(names, job.volume_name, job.placement, job.min_copies)
        tools = replace(self._membership.tools, threads=make_threads(self._config.engine.threads))
        opened: list[AnySource] = []
        try:
            changes = given_map(job.changed)
            # In a thread: opening what hangs must not hold up the others.
            await tools.threads.run(lambda: opened.append(open_source(job.source)))
            exporting = Exporting(
                self._ground,
                tools,
                to=names,
                policy=policy,
                min_copies=copies,
                dry_run=self._dry_run,
                skip_unreadable=job.skip_unreadable,
                limit_rate=job.limit_rate,
                side_by_side=min(self._parallel, len(self._jobs) - len(self._outcomes)),
            )
            return await exporting.run(opened[0], job.volume_name, job.block_size, job.parent, job.tags, self._on_progress, changes)
        finally:
            for source in opened:
                if source is not job.source:
                    source.close()
            tools.threads.close()
