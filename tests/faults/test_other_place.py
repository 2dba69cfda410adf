"""Destinations that are not what they were: unmounted, away, or far behind."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from snapferry.destination import Destination
from snapferry.errors import DestinationFull, DestinationNotARepository, DestinationUnreachable, SnapferryError
from snapferry.testing.sources import MemorySource
from snapferry.transport.wrapper import Wrapper
from snapferry.types import MiB
from tests.support.lab import BLOCK, MakeLab, changed, volume

FIRST = volume(1, blocks=12)
SECOND = changed(FIRST, 2, [2, 8])


async def test_a_place_that_lost_its_repository_since_it_was_opened_acknowledges_nothing(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
        lab.stores["far"].clear()  # Its disk was unmounted: what is there now has no key slot, and nobody could open it.
        result = await repository.export(MemorySource(SECOND), volume="v", block_size=BLOCK)
    assert (result.exit_code, result.acknowledged, result.behind) == (3, ("near",), ("far",))
    assert isinstance(result.failures["far"], DestinationNotARepository)
    assert lab.stores["far"] == {}


async def test_another_place_of_the_same_repository_is_not_taken_for_the_one_that_was_opened(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far", "third")
    async with lab.repository() as repository:
        lab.stores["far"] = lab.stores["third"]
        result = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
    assert result.acknowledged == ("near", "third")


async def test_a_generation_seen_at_a_place_that_is_away_is_not_given_twice(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
        await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK, to=["near"])
    lab.missing.add("near")
    async with lab.repository() as repository:
        newest = await repository.export(MemorySource(SECOND), volume="v", block_size=BLOCK, to=["far"])
    lab.missing.clear()
    assert newest.snapshot.generation == 3
    async with lab.repository() as repository:
        assert [item.snapshot.generation for item in await repository.list("v")] == [1, 2, 3]
        assert await lab.contents(repository, "v") == SECOND


async def test_packs_copied_for_the_new_snapshot_are_not_copied_again_for_its_parent(make_lab: MakeLab) -> None:
    lab = await make_lab()
    created: list[str] = []

    class Counts(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            created.append(key)
            return await self.inner.create(key, data)

    def counting(inner: Destination) -> Destination:
        return Counts(inner)

    async with lab.repository() as repository:
        await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK, to=["near"])
    lab.wrappers["far"] = counting
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(SECOND), volume="v", block_size=BLOCK)
    assert result.acknowledged == ("near", "far")
    packs = [key for key in created if key.startswith("packs/")]
    assert len(packs) == len(set(packs))
    assert len(lab.packs("far")) == len(packs)


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [64 << 10, 4 * MiB])
async def test_a_restore_beside_an_export_never_locks_up(make_lab: MakeLab, tmp_path: object, block_size: int) -> None:
    lab = await make_lab()
    data = os.urandom(64 * MiB)
    async with lab.repository(*lab.names, memory=64 * MiB) as repository:
        first = await repository.export(MemorySource(data), volume="v", block_size=block_size)
        async with asyncio.timeout(60):
            for number in range(2):
                await asyncio.gather(
                    repository.export(MemorySource(os.urandom(48 * MiB)), volume=f"w{number}", block_size=block_size),
                    repository.restore(first.id, f"{tmp_path}/one-{number}"),
                    repository.restore(first.id, f"{tmp_path}/two-{number}"),
                )
        budget = repository._membership.tools.budget
        assert budget.available == budget.total


async def test_half_a_pack_that_a_failed_attempt_left_behind_is_not_acknowledged(make_lab: MakeLab) -> None:
    lab = await make_lab()
    torn: set[str] = set()

    class Tears(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            if key.startswith("packs/") and key not in torn:
                torn.add(key)
                await self.inner.create(key, bytes(data)[: len(bytes(data)) // 2])
                raise DestinationUnreachable("hung up", self.name)
            return await self.inner.create(key, data)

    lab.wrappers["far"] = Tears
    for data in (FIRST, os.urandom(3 * MiB)):
        torn.clear()
        async with lab.repository() as repository:
            result = await repository.export(MemorySource(data), volume="v", block_size=BLOCK, parent="none")
        assert torn
        assert (result.exit_code, result.acknowledged, result.behind) == (3, ("near",), ("far",))


async def test_a_commit_that_was_decided_is_not_called_nothing(make_lab: MakeLab) -> None:
    lab = await make_lab("near")

    class NoCopies(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            if key.startswith("snapshots/"):
                raise DestinationFull("full", self.name)
            return await self.inner.create(key, data)

    lab.wrappers["near"] = NoCopies
    async with lab.repository() as repository:
        with pytest.raises(SnapferryError, match="what was begun is listed") as raised:
            await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
        assert raised.value.exit_code == 14
    lab.wrappers.clear()
    async with lab.repository() as repository:
        await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
        assert len(await repository.list()) == 2
