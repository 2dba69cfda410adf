"""Trying again what may pass by itself: how often, how long, and never so much that an outage is made worse by it.

Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), bounded in number and in time;
and a budget that all calls to one store share (Brooker, "Fixing retries with token buckets and circuit breakers", 2022): successes fill it,
retries empty it, so that a store in trouble is asked little more often than one in good health.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from snapferry.errors import DestinationError

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long.

    Attributes:
        attempts: at most so many calls, the first included.
        total: no call is begun later than so many seconds after the first.
        first, longest: upper bounds of the first pause and of every pause, in seconds. A store that asks for a longer one gets it.
        sleep, uniform, clock: of asyncio, random (between 0 and 1) and time; a test gives its own.
    """

    attempts: int = 5
    total: float = 60.0
    first: float = 0.25
    longest: float = 4.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """The seconds to wait after so many failures: evenly between 0 and a bound that doubles, after what the store asks for."""
        bound = min(self.longest, self.first * 2.0 ** (failures - 1))
        return (retry_after or 0.0) + self.uniform() * bound


class RetryBudget:
    """What all calls to one store may spend on retries.

    Arguments:
        capacity: so many retries in a row, and as many are saved at most.
        refill: of a retry, for each call that succeeds.
    """

    def __init__(self, capacity: float = 50.0, refill: float = 0.5) -> None:
        self._capacity = capacity
        self._refill = refill
        self.left = capacity

    def succeeded(self) -> None:
        """Saves a little."""
        self.left = min(self._capacity, self.left + self._refill)

    def take(self) -> bool:
        """Pays for one retry; False if there is nothing left to pay with."""
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


async def repeat(call: Callable[[], Awaitable[_Result]], policy: RetryPolicy, budget: RetryBudget) -> _Result:
    """The result of ``call``, made again while it fails with a ``retryable`` error and policy and budget allow it; else its last error."""
    begun = policy.clock()
    failures = 0
    while True:
        try:
            result = await call()
        except DestinationError as error:
            failures += 1
            pause = policy.pause(failures, error.retry_after)
            late = policy.clock() - begun + pause > policy.total
            if not error.retryable or failures >= policy.attempts or late or not budget.take():
                raise
        else:
            budget.succeeded()
            return result
        await policy.sleep(pause)
