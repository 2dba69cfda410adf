"""Whoever asks is answered by work that began after they asked; rounds never overlap; cancelled askers harm nobody."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.engine.ground import Rounds

ASKERS = st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 12)), min_size=1, max_size=15)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def play(askers: list[tuple[int, int | None]], seed: int) -> None:
    choice = random.Random(seed)
    ticks = itertools.count(1)
    running = 0
    rounds_run = 0

    async def work() -> int:
        nonlocal running, rounds_run
        running += 1
        rounds_run += 1
        assert running == 1
        began = next(ticks)
        try:
            await _turns(choice.randrange(5))
        finally:
            running -= 1
        return began

    rounds = Rounds(work)

    async def ask(delay: int) -> None:
        await _turns(delay)
        asked = next(ticks)
        assert await rounds.join() > asked

    tasks = [asyncio.create_task(ask(delay)) for delay, _ in askers]

    async def cancel(task: asyncio.Task[None], after: int) -> None:
        await _turns(after)
        task.cancel()

    async with asyncio.timeout(10):
        await asyncio.gather(*(cancel(task, after) for task, (_, after) in zip(tasks, askers, strict=True) if after is not None))
        await asyncio.gather(*tasks, return_exceptions=True)
    for task, (_, after) in zip(tasks, askers, strict=True):
        if task.cancelled():
            assert after is not None
        else:
            task.result()
    assert rounds_run <= len(askers)


@settings(max_examples=200, deadline=None)
@given(ASKERS, st.integers())
def test_answers_are_never_older_than_the_question(askers: list[tuple[int, int | None]], seed: int) -> None:
    asyncio.run(play(askers, seed))


async def test_many_share_one() -> None:
    gate = asyncio.Event()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await gate.wait()
        return runs

    rounds = Rounds(work)
    first = asyncio.create_task(rounds.join())
    await asyncio.sleep(0)
    later = [asyncio.create_task(rounds.join()) for _ in range(9)]
    await asyncio.sleep(0)
    gate.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 9


async def test_an_error_is_each_ones_own() -> None:
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        raise ValueError(str(runs))

    rounds = Rounds(work)
    found = await asyncio.gather(*(rounds.join() for _ in range(3)), return_exceptions=True)
    assert [type(item) for item in found] == [ValueError] * 3
    with pytest.raises(ValueError, match=r"\d"):
        await rounds.join()
