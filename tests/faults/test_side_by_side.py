"""Many exports and readers of one engine under a small budget: nobody waits for somebody who waits for them."""

from __future__ import annotations

import asyncio
import random

import pytest

from snapferry.testing.sources import MemorySource
from snapferry.types import KiB, MiB
from tests.support.lab import MakeLab


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [64 * KiB, 4 * MiB])
async def test_exports_side_by_side_never_lock_up(make_lab: MakeLab, block_size: int) -> None:
    lab = await make_lab()
    volumes = [random.Random(number).randbytes(60 * MiB + number) for number in range(4)]
    async with lab.repository(*lab.names, memory=64 * MiB) as repository:
        async with asyncio.timeout(60):
            exports = (repository.export(MemorySource(data), volume=f"v{n}", block_size=block_size) for n, data in enumerate(volumes))
            results = await asyncio.gather(*exports)
        budget = repository._membership.tools.budget
        assert budget.available == budget.total
        async with asyncio.timeout(60):
            contents = await asyncio.gather(*(lab.contents(repository, result.id) for result in results))
        assert contents == volumes
        assert budget.available == budget.total


async def test_an_export_inside_of_an_idle_reader_does_not_wait_for_it(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    data = random.Random(1).randbytes(70 * MiB)
    async with lab.repository("near", memory=64 * MiB) as repository:
        first = await repository.export(MemorySource(data), volume="v", block_size=4 * MiB)
        async with repository.open_snapshot(first.id) as one, repository.open_snapshot(first.id) as other, asyncio.timeout(60):
            for reader in (one, other):
                async for _ in reader.stream():
                    pass
            await repository.export(MemorySource(data[::-1]), volume="w", block_size=4 * MiB)
            assert await one.pread(1000, 5 * MiB) == data[5 * MiB : 5 * MiB + 1000]
