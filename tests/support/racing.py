"""Many extents read from replicas at the ends of simulated lines, in virtual time, each compared with what it should be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from snapferry.destination import Destination
from snapferry.destination.memory import MemoryDestination, MemoryStore
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.fetching import Fetcher, Memory
from snapferry.pipeline.leavings import Leavings
from snapferry.repository import names
from snapferry.repository.gathering import task_group
from snapferry.testing.links import SharesLine
from snapferry.transport import ByteBudget, ReplicaBoard, RetryPolicy, with_retry
from tests.support import virtual_time

UNIT = 544 << 10
"""Rates are in units a second. An extent is just long enough not to count as small."""

EXTENT = 2 * UNIT
IN_A_PACK = 4

Wrap = Callable[[Destination], Destination]
RETRIES = RetryPolicy(uniform=lambda: 1.0, clock=virtual_time.now)


@dataclass(eq=False, repr=False)
class Volume:
    """Packs of extents whose bytes tell them apart, at several replicas."""

    extents: int
    store: MemoryStore = field(default_factory=dict)
    packs: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        make = random.Random(7)
        pattern = make.randbytes(EXTENT)
        for first in range(0, self.extents, IN_A_PACK):
            self.packs.append(make.randbytes(32))
            self.store[names.pack(self.packs[-1])] = b"".join(
                (first + number).to_bytes(8, "big") + pattern[8:] for number in range(IN_A_PACK)
            )

    def where(self, number: int) -> tuple[bytes, int]:
        """(pack, offset) of an extent."""
        return self.packs[number // IN_A_PACK], number % IN_A_PACK * EXTENT

    def expected(self, number: int) -> memoryview:
        """What it holds."""
        pack, offset = self.where(number)
        return memoryview(self.store[names.pack(pack)])[offset : offset + EXTENT]


@dataclass(eq=False, repr=False)
class Race:
    """One run over all extents of a volume; times are virtual seconds."""

    volume: Volume
    replicas: Mapping[str, Wrap]
    buffers: int = 13
    spares: int = 3
    costs: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board = ReplicaBoard((), virtual_time.now)
        self.budget = ByteBudget((self.buffers + self.spares) * EXTENT)
        self.ends: dict[str, Destination] = {name: wrap(MemoryDestination(name, self.volume.store)) for name, wrap in self.replicas.items()}
        opened = {name: self.board.metered(with_retry(end, RETRIES)) for name, end in self.ends.items()}
        self.fetcher = Fetcher(opened, self.board, costs=self.costs)
        self.done: set[int] = set()

    async def run(self) -> Race:
        """Reads everything. When it returns or raises, nothing is left behind; that is checked."""
        begun = virtual_time.now()
        try:
            async with BufferPool(self.budget, EXTENT, self.buffers, self.spares) as pool, Leavings() as leavings:
                self.fetcher.leave_to(leavings)
                with self.fetcher.expecting(self.volume.extents * EXTENT) as expected:
                    async with task_group() as group:
                        for number in range(self.volume.extents):
                            held = [await pool.acquire()]
                            task = group.create_task(self._one(number, held, pool, expected.taken))
                            task.add_done_callback(partial(_release_all, pool, held))
                self.seconds = virtual_time.now() - begun
        finally:
            assert self.budget.available == self.budget.total
            assert len(asyncio.all_tasks()) == self.tasks
            assert all(meter.queued == meter.running == 0 for meter in self.board.meters.values())
            assert self.board.nothing_waits
        return self

    tasks = 1

    async def _one(self, number: int, held: list[memoryview], pool: BufferPool, taken: Callable[[int], None]) -> None:
        taken(EXTENT)
        buffer = held.pop()
        begun = virtual_time.now()

        async def check(data: memoryview) -> str | None:
            if data != self.volume.expected(number):
                return "its bytes are wrong"
            assert number not in self.done, "used twice"
            self.done.add(number)
            return None

        def spare() -> Memory | None:
            more = pool.spare()
            return None if more is None else Memory(more, partial(pool.release_spare, more))

        memory = Memory(buffer, partial(pool.release, buffer))
        await self.fetcher.read_extent(*self.volume.where(number), memory, check, spare)
        self.times.append(virtual_time.now() - begun)

    @property
    def rate(self) -> float:
        """Units a second of all together."""
        return self.volume.extents * EXTENT / UNIT / self.seconds

    @property
    def again(self) -> int:
        """Bytes that came more than once."""
        return sum(self.fetcher.fetched.values()) - self.volume.extents * EXTENT

    @property
    def share_hedged(self) -> float:
        """Of all bytes."""
        return self.fetcher.hedges.hedged / (self.volume.extents * EXTENT)

    def quantile(self, share: float) -> float:
        """Of the seconds that an extent took."""
        return sorted(self.times)[min(len(self.times) - 1, int(share * len(self.times)))]


def line(rate: float, latency: float = 0.001, before: Wrap = lambda inner: inner) -> Wrap:
    """A replica at the end of a line of so many units a second, with ``before`` between the line and us."""
    return lambda inner: before(SharesLine(inner, rate * UNIT, latency))


def race(volume: Volume, replicas: Mapping[str, Wrap], **how: object) -> Race:
    """One run to its end."""
    return virtual_time.run(_race(volume, replicas, how))


async def _race(volume: Volume, replicas: Mapping[str, Wrap], how: Mapping[str, object]) -> Race:
    found = await Race(volume, replicas, **how).run()  # type: ignore[arg-type]
    assert found.done == set(range(volume.extents))
    return found


def _release_all(pool: BufferPool, held: list[memoryview], task: asyncio.Task[None]) -> None:
    while held:
        pool.release(held.pop())
