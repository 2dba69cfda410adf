"""Calls in threads: a cancelled one is waited for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from snapferry.repository.gathering import together
from snapferry.repository.threads import Threads


async def test_results_and_errors_come_through() -> None:
    threads = Threads(2)
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)
    threads.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_call_ends_before_its_caller_goes_on(fails: bool) -> None:
    threads = Threads(1)
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        release.wait(10)
        ended.set()
        if fails:
            raise OSError

    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    threads.close()


async def test_a_call_that_no_thread_has_begun_is_dropped() -> None:
    threads = Threads(1)
    release = threading.Event()
    ran: list[int] = []
    first = asyncio.create_task(threads.run(release.wait, 10))
    await asyncio.sleep(0)
    second = asyncio.create_task(threads.run(ran.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    await first
    threads.close()
    assert ran == []


async def test_together_raises_the_first_failure_itself() -> None:
    async def fail() -> None:
        raise LookupError("one")

    async def wait() -> None:
        await asyncio.sleep(60)

    with pytest.raises(LookupError, match="one"):
        await together([wait(), fail()])

    async def number(n: int) -> int:
        return n

    assert await together(number(n) for n in range(5)) == [0, 1, 2, 3, 4]
