from __future__ import annotations

import asyncio

import pytest

from snapferry.errors import ConfigurationError
from snapferry.transport import BudgetShare, BudgetStatistics, ByteBudget


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_grants_as_much_as_there_is() -> None:
    budget = ByteBudget(100)
    assert await budget.acquire(10, 60) == 60
    assert await budget.acquire(10, 60) == 40
    assert budget.available == 0
    budget.release(100)
    assert budget.statistics() == BudgetStatistics(total=100, available=100, peak=100, waiting=0)


async def test_the_maximum_is_the_minimum_unless_given() -> None:
    budget = ByteBudget(100)
    assert await budget.acquire(30) == 30
    assert budget.peak == 30


async def test_waiters_are_served_in_turn() -> None:
    budget = ByteBudget(100)
    await budget.acquire(90)
    large = asyncio.create_task(budget.acquire(50))
    await turns()
    small = asyncio.create_task(budget.acquire(5))
    await turns()
    assert not small.done(), "the small one passed the large one, which could starve"
    assert budget.statistics().waiting == 2
    budget.release(90)
    assert await large == 50
    assert await small == 5


async def test_a_cancelled_waiter_lets_the_next_go() -> None:
    budget = ByteBudget(100)
    await budget.acquire(90)
    large = asyncio.create_task(budget.acquire(50))
    small = asyncio.create_task(budget.acquire(5))
    await turns()
    large.cancel()
    await turns()
    assert await small == 5
    budget.release(95)
    assert budget.available == 100


async def test_a_grant_that_meets_a_cancellation_is_not_lost() -> None:
    budget = ByteBudget(100)
    await budget.acquire(100)
    waiting = asyncio.create_task(budget.acquire(50))
    behind = asyncio.create_task(budget.acquire(60))
    await turns()
    budget.release(100)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await behind == 60
    budget.release(60)
    assert budget.available == 100


async def test_a_cancellation_that_meets_a_release_is_passed_over() -> None:
    budget = ByteBudget(100)
    await budget.acquire(100)
    waiting = asyncio.create_task(budget.acquire(50))
    behind = asyncio.create_task(budget.acquire(60))
    await turns()
    waiting.cancel()
    budget.release(100)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await behind == 60
    assert budget.available == 40


async def test_what_can_never_be_is_refused_at_once() -> None:
    budget = ByteBudget(100)
    with pytest.raises(ConfigurationError, match="too small"):
        await budget.acquire(101)
    with pytest.raises(ConfigurationError):
        ByteBudget(0)
    for minimum, maximum in ((-1, 5), (5, 4)):
        with pytest.raises(ValueError, match="cannot reserve"):
            await budget.acquire(minimum, maximum)


async def test_more_cannot_be_released_than_was_reserved() -> None:
    budget = ByteBudget(100)
    await budget.acquire(10)
    for count in (11, -1):
        with pytest.raises(ValueError, match="released"):
            budget.release(count)
    assert budget.available == 90


async def test_a_part_gives_back_only_its_own_when_a_grant_is_cancelled_in_the_same_turn() -> None:
    """The whole had not given anything yet: what came back to it would be there twice."""
    whole = ByteBudget(30)
    await whole.acquire(15)
    part = BudgetShare(whole, 10)
    held = await part.acquire(10)
    waiting = asyncio.create_task(part.acquire(5))
    await turns()
    part.release(held)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (part.available, whole.available) == (10, 15)
