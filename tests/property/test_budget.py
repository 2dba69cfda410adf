"""Whatever is asked, released and cancelled in whatever order: no byte is lost, none is granted twice, nobody waits without cause."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.transport import ByteBudget

TOTAL = 100
STEPS = st.one_of(
    st.tuples(st.just("acquire"), st.integers(0, TOTAL), st.integers(0, 2 * TOTAL)),
    st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("release"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("turn"), st.just(0), st.just(0)),
)


async def play(steps: list[tuple[str, int, int]]) -> None:
    budget = ByteBudget(TOTAL)
    tasks: list[asyncio.Task[int]] = []
    minima: dict[asyncio.Task[int], tuple[int, int]] = {}
    released: set[asyncio.Task[int]] = set()

    def held() -> list[asyncio.Task[int]]:
        return [task for task in tasks if task.done() and not task.cancelled() and task not in released]

    async def settle() -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    for kind, number, extra in steps:
        if kind == "acquire":
            task = asyncio.create_task(budget.acquire(number, number + extra))
            minima[task] = (number, number + extra)
            tasks.append(task)
        elif kind == "cancel" and tasks:
            tasks[number % len(tasks)].cancel()
        elif kind == "release" and held():
            task = held()[number % len(held())]
            released.add(task)
            budget.release(task.result())
        elif kind == "turn":
            await settle()
            assert budget.available + sum(task.result() for task in held()) == TOTAL
            waiting = [task for task in tasks if not task.done()]
            assert budget.statistics().waiting == len(waiting)
            if waiting:
                assert minima[waiting[0]][0] > budget.available, "the first waiter could be served"
    for _ in range(len(tasks) + 1):
        await settle()
        for task in held():
            assert minima[task][0] <= task.result() <= max(minima[task])
            released.add(task)
            budget.release(task.result())
    assert all(task.done() for task in tasks)
    assert budget.available == TOTAL
    assert budget.peak <= TOTAL


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_no_byte_is_lost(steps: list[tuple[str, int, int]]) -> None:
    asyncio.run(play(steps))
