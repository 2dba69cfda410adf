"""Exports of streams and by maps of changes, cancelled anywhere and with a destination that fails: what is listed is whole, or nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from snapferry.engine import Repository
from snapferry.errors import DestinationUnreachable
from snapferry.source import ChangeMap
from snapferry.testing.sources import MemorySource, MemoryStream
from snapferry.types import ExportResult
from tests.support.lab import BLOCK, FailsNthThroughAll, MakeLab, changed, volume

FIRST = volume(1, blocks=300)
SECOND = changed(FIRST, 2, [2, 280])

Begin = Callable[[Repository, str], Any]


async def _stream(repository: Repository, parent: str) -> ExportResult:
    del parent
    return await repository.export(MemoryStream(SECOND, piece=1 << 20), volume="v")


async def _map(repository: Repository, parent: str) -> ExportResult:
    changes = ChangeMap("map", parent, ((2 * BLOCK, 5000), (280 * BLOCK, 5000)), ())
    return await repository.export(MemorySource(SECOND), volume="v", changed=changes)


async def _map_walked(repository: Repository, parent: str) -> ExportResult:
    repository._membership.pack_sets.store("v", parent, b"?" * 32)  # Of a pack that nobody has.
    return await _map(repository, parent)


KINDS = [pytest.param(kind, id=kind.__name__.strip("_")) for kind in (_stream, _map, _map_walked)]


@pytest.mark.slow
@pytest.mark.parametrize("begin", KINDS)
async def test_cancelled_after_any_number_of_turns_of_the_loop(make_lab: MakeLab, begin: Begin) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        first = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
    start = lab.saved()
    finished, turns = 0, 0
    while finished < 2:
        turns += 7 if turns < 100 else 1 + turns // 4
        lab.go_back(start)
        async with lab.repository() as repository:
            task = asyncio.create_task(begin(repository, first.id))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            finished += not task.cancelled()
            budget = repository._membership.tools.budget
            assert budget.available == budget.total
            for item in await repository.list():
                assert await lab.contents(repository, item.snapshot.id) == (FIRST if item.snapshot.id == first.id else SECOND)
            again = await begin(repository, first.id)
            assert await lab.contents(repository, again.id) == SECOND
            damage = (await repository.verify(read_data=100)).damage
            assert [item for item in damage if "rolled back" not in item.reason] == []  # Which is what this test does.
        assert turns < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("begin", KINDS)
@pytest.mark.parametrize("operation", ["create", "read_into"])
async def test_any_operation_of_one_destination_fails(make_lab: MakeLab, begin: Begin, operation: Any) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        first = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
    start = lab.saved()
    for nth in range(1, 200):
        lab.go_back(start)
        lab.wrappers["far"] = failing = FailsNthThroughAll(operation, nth, partial(DestinationUnreachable, "gone"), times=3)
        async with lab.repository() as repository:
            result = await begin(repository, first.id)
        lab.wrappers.clear()
        assert "near" in result.acknowledged
        await lab.assert_restores_alone({first.id: FIRST, result.id: SECOND})
        if not failing.fired:
            return
    pytest.fail("the faults never ended")
