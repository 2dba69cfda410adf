"""The wrappers of the rate limit: what counts, in which direction, second attempts too."""

from __future__ import annotations

import time

from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable
from snapferry.testing.faults import FailsNth
from snapferry.transport import Limits, RetryPolicy, with_retry

KEY = "packs/00/" + "0" * 64
RATE = 100_000.0


async def _seconds(work: object) -> float:
    began = time.monotonic()
    await work  # type: ignore[misc]
    return time.monotonic() - began


async def test_both_directions_wait_by_themselves() -> None:
    limits = Limits(RATE)
    destination = limits.limited(limits.counted(MemoryDestination("a", {})))
    data = bytes(30_000)
    assert 0.2 <= await _seconds(destination.create(KEY, data)) < 2
    # What was sent takes nothing from what is fetched.
    assert 0.05 <= await _seconds(destination.read_into(KEY, 0, memoryview(bytearray(25_000)))) < 2
    assert 0.05 <= await _seconds(destination.read_tail(KEY, 25_000)) < 2
    # An object's length shows when it came: the next one waits for it.
    assert await destination.read(KEY, 1 << 20) == data
    assert 0.2 <= await _seconds(destination.read(KEY, 1 << 20)) < 2
    assert [item.key async for item in destination.list("packs/")] == [KEY]


async def test_what_is_sent_again_is_paid_again() -> None:
    async def at_once(seconds: float) -> None:
        del seconds

    limits = Limits(RATE)
    broken = FailsNth(MemoryDestination("a", {}), "create", 1, lambda: DestinationUnreachable("reset"), times=2)
    destination = limits.limited(with_retry(limits.counted(broken), RetryPolicy(sleep=at_once)))
    assert await _seconds(destination.create(KEY, bytes(20_000))) < 1
    assert broken.calls == 3
    assert 0.35 <= await _seconds(destination.create("index/" + "0" * 64, b"x")) < 3


async def test_the_rate_may_be_set_and_lifted() -> None:
    limits = Limits()
    destination = limits.limited(limits.counted(MemoryDestination("a", {})))
    assert limits.rate is None
    assert await _seconds(destination.create(KEY, bytes(10_000_000))) < 1
    limits.rate = RATE
    assert limits.rate == RATE
    assert 0.1 <= await _seconds(destination.read_into(KEY, 0, memoryview(bytearray(40_000)))) < 2
    limits.rate = None
    assert await _seconds(destination.read_into(KEY, 0, memoryview(bytearray(10_000_000)))) < 1
