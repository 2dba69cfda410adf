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
