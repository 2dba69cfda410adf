"""Exports side by side in one budget, whatever their block sizes and pace: all end, none holds more than its share, and one whose destination
hangs keeps nothing from the others. The pool, the room and the budget are the real ones; only the packer is a model."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.errors import ConfigurationError
from snapferry.pipeline.admission import Admission, Share
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.room import Room
from snapferry.pipeline.sizing import fair_share, room_needed
from snapferry.repository.gathering import task_group
from snapferry.transport import ByteBudget
from snapferry.types import KiB, MiB

BLOCKS = [64 * KiB, 256 * KiB, 1 * MiB, 4 * MiB]


@dataclass
class Pack:
    capacity: int


@dataclass
class Packer:
    """Fills packs of the capacities that it was provided with, one after another; what does not fit at a pack's end is lost."""

    capacities: list[int] = field(default_factory=list)
    filled: int = 0

    @property
    def room(self) -> int:
        return sum(self.capacities) - self.filled

    def provide(self, capacity: int) -> None:
        self.capacities.append(capacity)

    def process(self, block_size: int, count: int) -> list[Pack]:
        full = []
        for _ in range(count):
            if self.filled + block_size + 64 > self.capacities[0]:
                full.append(Pack(self.capacities.pop(0)))
                self.filled = 0
            self.filled += block_size + 64
            assert self.capacities, "a batch used more than it was promised"
            assert self.filled <= self.capacities[0]
        return full


async def _turns(choice: random.Random) -> None:
    for _ in range(choice.randrange(6)):
        await asyncio.sleep(0)


async def export(share: Share, block_size: int, batches: int, choice: random.Random, hung: asyncio.Event | None) -> None:
    """The movements of a real one: a buffer, room, the batch, packs on their way. ``hung``: packs wait for it."""
    sizing, budget, packer = share.sizing, share.budget, Packer()
    room = Room(packer, budget, sizing)  # type: ignore[arg-type]

    async def batch(buffer: memoryview, need: int) -> None:
        await _turns(choice)
        packs = packer.process(block_size, sizing.batch)
        pool.release(buffer)
        room.keep(need)
        for pack in packs:
            group.create_task(send(room.finished(pack)))  # type: ignore[arg-type]

    async def send(capacity: int) -> None:
        try:
            await _turns(choice)
            if hung is not None:
                await hung.wait()
        finally:
            budget.release(capacity)

    try:
        async with BufferPool(budget, sizing.batch * block_size, sizing.readers) as pool, task_group() as group:
            for _ in range(batches):
                buffer = await pool.acquire()
                need = room_needed(sizing.batch, block_size)
                await room.promise(need)
                group.create_task(batch(buffer, need))
    finally:
        room.close()


async def play(memory: int, jobs: list[tuple[int, int]], side_by_side: int | None, hanging: int, seed: int) -> None:
    budget = ByteBudget(memory)
    admission = Admission(budget, 2)
    choice = random.Random(seed)
    slots = asyncio.Semaphore(side_by_side or len(jobs))
    hung = asyncio.Event()
    ended = 0

    async def one(number: int, block_size: int, batches: int) -> None:
        nonlocal ended
        async with slots, admission.share(block_size, side_by_side) as share:
            if side_by_side is not None:
                assert share.budget.total <= max(memory // side_by_side, fair_share(memory, block_size, side_by_side))
            await export(share, block_size, batches, choice, hung if number < hanging else None)
            ended += 1

    tasks = [asyncio.create_task(one(number, *job)) for number, job in enumerate(jobs)]
    async with asyncio.timeout(30):
        while ended < len(jobs) - hanging:
            await asyncio.sleep(0)
            for task in tasks:
                if task.done():
                    task.result()
    hung.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks)
    assert budget.available == budget.total
    assert budget.peak <= memory
    async with asyncio.timeout(1), admission.share(64 * KiB) as share:
        assert share.sizing.held > 0


JOBS = st.lists(st.tuples(st.sampled_from(BLOCKS), st.integers(1, 40)), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.integers(64, 300), JOBS, st.none() | st.integers(1, 12), st.integers())
def test_all_end(memory: int, jobs: list[tuple[int, int]], side_by_side: int | None, seed: int) -> None:
    asyncio.run(play(memory * MiB, jobs, side_by_side, 0, seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(64, 300), JOBS, st.integers(2, 5), st.integers(1, 4), st.integers())
def test_those_that_hang_keep_nothing_from_the_others(
    memory: int, jobs: list[tuple[int, int]], side_by_side: int, hanging: int, seed: int
) -> None:
    # As many may hang as leave the others a place and a share.
    jobs = [(min(size, 256 * KiB), 3 * batches) for size, batches in jobs]
    asyncio.run(play(memory * MiB, jobs, side_by_side, min(hanging, side_by_side - 1, 3), seed))


async def test_shares_are_fair() -> None:
    admission = Admission(ByteBudget(256 * MiB), 2)
    async with admission.share(256 * KiB, 4) as one, admission.share(256 * KiB, 4) as other, admission.share(64 * KiB, 4):
        assert one.budget.total == other.budget.total == 64 * MiB
        assert one.sizing == other.sizing
        async with admission.share(64 * KiB, 4) as last:
            assert last.budget.total == 64 * MiB


async def test_who_is_alone_leaves_room_for_another() -> None:
    admission = Admission(ByteBudget(256 * MiB), 2)
    async with admission.share(256 * KiB) as alone:
        assert (alone.budget.total, alone.sizing.readers, alone.sizing.largest_pack) == (256 * MiB, 3, 32 * MiB)
        async with asyncio.timeout(1), admission.share(256 * KiB) as second:
            assert second.sizing.readers >= 1


async def test_a_budget_that_is_too_small_for_the_blocks_is_told() -> None:
    admission = Admission(ByteBudget(16 * MiB), 2)
    with pytest.raises(ConfigurationError, match="MiB or more"):
        async with admission.share(4 * MiB):
            pass
    async with asyncio.timeout(1), admission.share(64 * KiB):
        pass


async def test_a_cancelled_wait_takes_nothing() -> None:
    admission = Admission(ByteBudget(64 * MiB), 2)

    async def wait() -> None:
        async with admission.share(4 * MiB, 2):
            raise AssertionError("there is no second share")

    async with admission.share(4 * MiB, 2):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(1), admission.share(4 * MiB, 1) as share:
        assert share.budget.total == 64 * MiB
