"""The rate limit by a clock of its own: never more than the rate allows, from the start on; all of it when there is enough to send; in turns."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Coroutine

from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.transport import RateLimit
from snapferry.transport.limit import PIECE_SECONDS


class Clock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        await asyncio.sleep(0)
        self.now += seconds


class SharedClock(Clock):
    """For several who sleep at once: their times overlap. It goes on when nobody can do anything before."""

    def __init__(self) -> None:
        super().__init__()
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self.now + seconds, next(self._count), woken))
        await woken

    async def run(self, *work: Coroutine[None, None, None]) -> None:
        """Until all of it is done."""
        tasks = [asyncio.create_task(item) for item in work]
        while not all(task.done() for task in tasks):
            for _ in range(3 * len(tasks) + 3):
                await asyncio.sleep(0)
            if self._sleeping:
                self.now, _, woken = heapq.heappop(self._sleeping)
                if not woken.done():
                    woken.set_result(None)
        await asyncio.gather(*tasks)


def make(rate: float | None) -> tuple[RateLimit, Clock]:
    clock = Clock()
    return RateLimit(rate, clock=clock, sleep=clock.sleep), clock


CALLS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50_000)), min_size=1, max_size=25)


@settings(max_examples=150, deadline=None)
@given(st.integers(1_000, 100_000), CALLS, st.lists(st.integers(1, 5_000), max_size=5))
def test_never_more_than_the_rate_and_all_of_it(rate: int, calls: list[tuple[str, int]], debts: list[int]) -> None:
    async def play() -> None:
        limit, clock = make(float(rate))
        passed = 0
        for debt in debts:
            limit.owe(debt)

        async def send(line: str, count: int) -> None:
            nonlocal passed
            await limit.spend(count, line)
            passed += count
            # What is paid before counts when it passes.
            assert passed + sum(debts) <= rate * (clock.now + 2 * PIECE_SECONDS) + 1e-6

        await asyncio.gather(*(send(*call) for call in calls))
        assert passed == sum(count for _, count in calls)
        assert clock.now <= (passed + sum(debts)) / rate + 0.002

    asyncio.run(play())


@settings(max_examples=60, deadline=None)
@given(st.integers(1_000, 100_000), st.integers(2, 4), st.integers(1, 4), st.integers(0, 1000))
def test_lines_take_turns_however_many_calls_each_has(rate: int, lines: int, calls: int, odd: int) -> None:
    async def play() -> None:
        limit, clock = make(float(rate))
        passed = dict.fromkeys(range(lines), 0)
        size = 2 * rate + odd

        async def send(line: int) -> None:
            await limit.spend(size, str(line))
            passed[line] += 1

        # The first line has as many calls at once as it likes.
        tasks = [asyncio.create_task(send(line)) for line in range(lines) for _ in range(calls if line == 0 else 1)]
        while not all(passed[line] for line in range(1, lines)):
            await asyncio.sleep(0)
        assert passed[0] <= 1
        assert clock.now <= (lines * size + lines * rate * PIECE_SECONDS) / rate + 1
        await asyncio.gather(*tasks)

    asyncio.run(play())


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1_000, 100_000),
    st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.integers(1_000, 100_000)), min_size=3),
    CALLS,
)
def test_own_limits_within_that_of_all_and_nobody_waits_for_anothers(
    total: int, own: dict[str, int | None], calls: list[tuple[str, int]]
) -> None:
    async def play() -> None:
        clock = SharedClock()
        whole = RateLimit(total, clock=clock, sleep=clock.sleep)
        limits = {name: RateLimit(rate, whole, clock=clock, sleep=clock.sleep) for name, rate in own.items()}
        passed = dict.fromkeys(own, 0)
        ended: dict[str, float] = {}

        async def send(name: str, count: int) -> None:
            await limits[name].spend(count)
            passed[name] += count
            ended[name] = clock.now
            assert sum(passed.values()) <= total * (clock.now + 2 * PIECE_SECONDS) + 1e-6
            rate = own[name]
            assert rate is None or passed[name] <= rate * (clock.now + 2 * PIECE_SECONDS) + 1e-6

        await clock.run(*(send(*call) for call in calls))
        for name, end in ended.items():
            # Each is done no later than if it had its own rate, or an even share of what all may have: whatever limits the others.
            rate = min(own[name] or total, total / len(ended))
            assert end <= passed[name] / rate * 1.05 + (len(calls) + 5) * PIECE_SECONDS

    asyncio.run(play())


async def test_one_that_may_hardly_pass_takes_nothing_from_the_others() -> None:
    clock = Clock()
    whole = RateLimit(100_000.0, clock=clock, sleep=clock.sleep)
    slow, fast = (RateLimit(rate, whole, clock=clock, sleep=clock.sleep) for rate in (10.0, None))
    trickle = asyncio.create_task(slow.spend(1_000_000))
    await asyncio.sleep(0)
    await fast.spend(1_000_000)
    assert 9.8 <= clock.now <= 10.3
    slow.owe(10)  # Owed to both.
    trickle.cancel()
    await asyncio.gather(trickle, return_exceptions=True)


async def test_a_short_call_goes_between_the_pieces_of_a_long_one() -> None:
    limit, clock = make(1000.0)
    long = asyncio.create_task(limit.spend(100_000, "a"))
    await asyncio.sleep(0)
    await limit.spend(50, "a")
    assert clock.now <= 0.3
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    await limit.spend(100, "a")
    assert clock.now <= 0.6


async def test_a_new_rate_counts_at_once() -> None:
    limit, clock = make(10.0)
    waiting = asyncio.create_task(limit.spend(10_000))
    for _ in range(20):
        await asyncio.sleep(0)
    limit.rate = 10_000.0
    began = clock.now
    await waiting
    assert clock.now - began <= 1.3
    waiting = asyncio.create_task(limit.spend(1_000_000))
    await asyncio.sleep(0)
    limit.rate = None
    began = clock.now
    await waiting
    assert clock.now - began <= 0.3


async def test_idle_time_is_not_saved_up() -> None:
    limit, clock = make(1000.0)
    clock.now += 3600
    await limit.spend(10_000)
    assert 3600 + 9.7 <= clock.now <= 3610


async def test_without_a_limit_nobody_waits() -> None:
    limit, clock = make(None)
    await limit.spend(1 << 40)
    limit.owe(1 << 40)
    assert clock.now == 0
