"""The pool of read buffers, and the replica choice with what comes after a failure."""

from __future__ import annotations

import asyncio
import functools

import pytest

from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable, ObjectDamaged, ObjectNotFound
from snapferry.pipeline.buffers import BufferPool
from snapferry.pipeline.fetching import Fetcher, NoReplica
from snapferry.repository import names
from snapferry.testing.faults import FailsNth
from snapferry.transport import BudgetShare, ByteBudget, ReplicaBoard

PACK = b"p" * 32


async def test_buffers_are_used_again_and_given_back() -> None:
    budget = ByteBudget(100 << 10)
    async with BufferPool(budget, 32 << 10, 2) as pool:
        one = await pool.acquire()
        one[:5] = b"hello"
        pool.release(one)
        again = await pool.acquire()
        assert again is one
        other = await pool.acquire()
        assert budget.available == 36 << 10
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        assert not waiting.done()
        pool.release(other)
        assert await waiting is other
    assert budget.available == budget.total


async def test_a_cancelled_wait_for_the_budget_loses_nothing() -> None:
    budget = ByteBudget(64 << 10)
    await budget.acquire(60 << 10)
    async with BufferPool(budget, 32 << 10, 1) as pool:
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        budget.release(60 << 10)
        pool.release(await pool.acquire())
    assert budget.available == budget.total


def _fetcher(**stores: dict[str, bytes]) -> Fetcher:
    return Fetcher({name: MemoryDestination(name, store) for name, store in stores.items()}, ReplicaBoard(stores))


async def _passes(data: memoryview) -> None:
    del data


async def test_the_next_replica_is_asked_and_none_twice() -> None:
    good = {names.pack(PACK): b"0123456789"}
    fetcher = _fetcher(a={}, b={names.pack(PACK): b"012"}, c=good, d=good)
    seen: list[bytes] = []

    async def altered_at_first(data: memoryview) -> str | None:
        seen.append(bytes(data))
        return "altered" if len(seen) == 1 else None

    await fetcher.read(PACK, 2, 4, altered_at_first)
    assert seen == [b"2345", b"2345"]
    assert sorted(fetcher.fetched.values()) == [0, 0, 4, 4]
    assert 1 <= fetcher.failovers <= 3

    async def altered(data: memoryview) -> str:
        return "altered"

    with pytest.raises(NoReplica) as caught:
        await fetcher.read(PACK, 2, 4, altered)
    assert caught.value.answered
    assert {name: type(error) for name, error in caught.value.failures.items()} == {
        "a": ObjectNotFound,
        "b": ObjectDamaged,
        "c": ObjectDamaged,
        "d": ObjectDamaged,
    }
    assert {damage.destination for damage in fetcher.damage} == set("abcd")


async def test_unreachable_and_unreadable_are_told_apart() -> None:
    store = {names.pack(PACK): b"0123456789", "config": b"there"}
    board = ReplicaBoard(["a"])
    down = FailsNth(MemoryDestination("a", store), "any", 1, lambda: DestinationUnreachable("down"), times=99)
    with pytest.raises(NoReplica) as caught:
        await Fetcher({"a": down}, board).read(PACK, 0, 4, _passes)
    assert not caught.value.answered
    bad_sector = FailsNth(MemoryDestination("a", store), "read_into", 1, lambda: DestinationUnreachable("Input/output error"), times=99)
    fetcher = Fetcher({"a": bad_sector}, board)
    with pytest.raises(NoReplica) as caught:
        await fetcher.read(PACK, 0, 4, _passes)
    assert caught.value.answered
    assert [damage.object for damage in fetcher.damage] == [names.pack(PACK)]


async def test_spares_are_beside_the_others_and_never_waited_for() -> None:
    budget = ByteBudget(96 << 10)
    async with BufferPool(budget, 32 << 10, 1, spares=1) as pool:
        one = await pool.acquire()
        spare = pool.spare()
        assert spare is not None
        assert pool.spare() is None
        pool.release_spare(spare)
        pool.release(one)
        one, other = await pool.acquire(), pool.spare()
        assert other is not None
        pool.release(one)
        pool.release_spare(other)
        assert budget.available == 32 << 10
    assert budget.available == budget.total
    await budget.acquire(80 << 10)
    async with BufferPool(budget, 32 << 10, 1, spares=1) as pool:
        assert pool.spare() is None  # There is no room for it.
    budget.release(80 << 10)


async def test_who_waits_for_the_budget_takes_a_buffer_that_is_released_before() -> None:
    budget = ByteBudget(64 << 10)
    async with BufferPool(budget, 32 << 10, 3) as pool:
        one = await pool.acquire()
        await budget.acquire(32 << 10)  # Somebody else's, who waits for this pool to be left.
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0.01)
        pool.release(one)
        async with asyncio.timeout(5):
            assert await waiting is one
        assert budget.statistics().waiting == 0
        budget.release(32 << 10)
        pool.release(one)
    assert budget.available == budget.total


@pytest.mark.parametrize("order", ["released first", "granted first"])
async def test_a_buffer_and_a_grant_at_once_and_cancelled_lose_neither(order: str) -> None:
    budget = ByteBudget(64 << 10)
    for cancelled in (False, True):
        async with BufferPool(budget, 32 << 10, 2) as pool:
            one = await pool.acquire()
            await budget.acquire(32 << 10)
            waiting = asyncio.create_task(pool.acquire())
            await asyncio.sleep(0.01)
            steps = [functools.partial(pool.release, one), functools.partial(budget.release, 32 << 10)]
            for step in steps if order == "released first" else reversed(steps):
                step()
            if cancelled:
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            else:
                pool.release(await waiting)
            await asyncio.sleep(0)
            for buffer in [await pool.acquire(), await pool.acquire()]:
                pool.release(buffer)
        assert budget.available == budget.total


@pytest.mark.parametrize("part", [False, True])
async def test_an_idle_pool_gives_its_buffers_to_who_waits(part: bool) -> None:
    whole = ByteBudget(64 << 10)
    budget = BudgetShare(whole, 64 << 10) if part else whole
    async with BufferPool(budget, 32 << 10, 2) as pool, asyncio.timeout(5):
        one, other = await pool.acquire(), await pool.acquire()
        pool.release(one)
        pool.release(other)
        assert whole.available == 0  # Kept for the next use, as long as nobody wants it.
        assert await whole.acquire(64 << 10) == 64 << 10
        whole.release(64 << 10)
        # One that is in use is waited for, and then given back at once.
        one = await pool.acquire()
        waiting = asyncio.create_task(whole.acquire(64 << 10))
        await asyncio.sleep(0)
        assert not waiting.done()
        pool.release(one)
        assert await waiting == 64 << 10
        whole.release(64 << 10)
        pool.release(await pool.acquire())
    assert whole.available == whole.total
    assert await whole.acquire(64 << 10) == 64 << 10
