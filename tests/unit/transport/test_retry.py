from __future__ import annotations

import asyncio
import random

import pytest

from snapferry.destination import Destination, list_keys
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationDenied, DestinationFull, DestinationUnreachable, ObjectDamaged, ObjectNotFound
from snapferry.testing.conformance import keys_of
from snapferry.testing.faults import FailsNth, Hangs, LosesReply, Operation
from snapferry.transport import RetryBudget, RetryPolicy, with_retry


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def policy(self, **changes: float) -> RetryPolicy:
        return RetryPolicy(sleep=self.sleep, uniform=lambda: 1.0, clock=lambda: self.now, **changes)  # type: ignore[arg-type]


def unreachable() -> DestinationUnreachable:
    return DestinationUnreachable("does not answer", "near")


OPERATIONS: tuple[Operation, ...] = ("create", "read", "read_into", "read_tail", "list", "delete")


async def call(destination: Destination, operation: Operation) -> object:
    match operation:
        case "create":
            return await destination.create("new", b"new")
        case "read":
            return await destination.read("config", 1)
        case "read_into":
            await destination.read_into("config", 0, memoryview(bytearray(1)))
        case "read_tail":
            return await destination.read_tail("config", 1)
        case "list":
            return await keys_of(destination)
        case _:
            await destination.delete("config")
    return None


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_operation_is_tried_again(operation: Operation) -> None:
    time = Time()
    failing = FailsNth(MemoryDestination("near", {"config": b"x"}), operation, 1, unreachable, times=3)
    result = await call(with_retry(failing, time.policy()), operation)
    expected = {"create": True, "read": b"x", "read_into": None, "read_tail": (b"x", 1), "list": {"config": 1}, "delete": None}
    assert result == expected[operation]
    assert failing.calls == 4
    assert time.pauses == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_it_gives_up(operation: Operation) -> None:
    time = Time()
    failing = FailsNth(MemoryDestination("near", {"config": b"x"}), operation, 1, unreachable, times=99)
    with pytest.raises(DestinationUnreachable):
        await call(with_retry(failing, time.policy()), operation)
    assert failing.calls == 5


async def test_it_gives_up_in_time() -> None:
    time = Time()
    failing = FailsNth(MemoryDestination("near", {"config": b"x"}), "read", 1, unreachable, times=99)
    with pytest.raises(DestinationUnreachable):
        await call(with_retry(failing, time.policy(attempts=99)), "read")
    assert 50.0 < time.now <= 60.0
    assert max(time.pauses) == 4.0


async def test_a_store_that_asks_for_time_gets_it_and_jitter_on_top() -> None:
    time = Time()
    failing = FailsNth(
        MemoryDestination("near", {"config": b"x"}), "read", 1, lambda: DestinationUnreachable("busy", retry_after=7.0), times=2
    )
    assert await with_retry(failing, time.policy()).read("config", 1) == b"x"
    assert time.pauses == [7.25, 7.5]


async def test_a_store_that_asks_for_too_much_time_is_given_up() -> None:
    time = Time()
    failing = FailsNth(MemoryDestination("near"), "read", 1, lambda: DestinationUnreachable("busy", retry_after=61.0), times=9)
    with pytest.raises(DestinationUnreachable, match="busy"):
        await with_retry(failing, time.policy()).read("config", 1)
    assert time.pauses == []


async def test_an_error_may_say_that_it_will_not_pass() -> None:
    time = Time()
    failing = FailsNth(MemoryDestination("near"), "read", 1, lambda: DestinationUnreachable("no such bucket", retryable=False))
    with pytest.raises(DestinationUnreachable):
        await with_retry(failing, time.policy()).read("config", 1)
    assert (failing.calls, time.pauses) == (1, [])


async def test_an_outage_is_not_made_worse_by_retries() -> None:
    time = Time()
    failing = FailsNth(MemoryDestination("near"), "read", 1, unreachable, times=10_000)
    destination = with_retry(failing, time.policy(), RetryBudget(capacity=10))
    for _ in range(100):
        with pytest.raises(DestinationUnreachable):
            await destination.read("config", 1)
    assert failing.calls == 110


async def test_successes_fill_the_budget_again() -> None:
    budget = RetryBudget(capacity=2, refill=0.5)
    assert [budget.take(), budget.take(), budget.take()] == [True, True, False]
    budget.succeeded()
    assert not budget.take()
    for _ in range(100):
        budget.succeeded()
    assert [budget.take(), budget.take(), budget.take()] == [True, True, False]


@pytest.mark.parametrize("error", [DestinationDenied, DestinationFull, ObjectNotFound, ObjectDamaged, ValueError, KeyError])
async def test_what_does_not_pass_is_not_tried_again(error: type[Exception]) -> None:
    time = Time()
    failing = FailsNth(MemoryDestination("near"), "read", 1, lambda: error("final"))
    with pytest.raises(error):
        await with_retry(failing, time.policy()).read("config", 1)
    assert (failing.calls, time.pauses) == (1, [])


async def test_a_create_whose_reply_was_lost_was_ours() -> None:
    losing = LosesReply(MemoryDestination("near"))
    assert await with_retry(losing, Time().policy()).create("sessions/ab/0", b"ours") is True
    assert losing.lost == 1


async def test_a_create_that_lost_a_race_while_it_was_tried_again_was_not_ours() -> None:
    inner = MemoryDestination("near", {"sessions/ab/0": b"another's"})
    failing = FailsNth(inner, "create", 1, unreachable)
    assert await with_retry(failing, Time().policy()).create("sessions/ab/0", b"ours") is False
    assert inner.store["sessions/ab/0"] == b"another's"


async def test_a_taken_key_is_not_looked_at_without_cause() -> None:
    inner = FailsNth(MemoryDestination("near", {"config": b"same"}), "read", 1, AssertionError)
    assert await with_retry(inner, Time().policy()).create("config", b"same") is False
    assert inner.calls == 0


async def test_a_listing_that_breaks_off_is_not_begun_again() -> None:
    class Breaks(MemoryDestination):
        async def list(self, prefix):  # type: ignore[no-untyped-def]
            async for item in super().list(prefix):
                yield item
            raise unreachable()

    with pytest.raises(DestinationUnreachable):
        await keys_of(with_retry(Breaks("near", {"config": b"x"}), Time().policy()))


async def test_a_cancellation_ends_it() -> None:
    hanging = Hangs(MemoryDestination("near", {"config": b"x"}))
    reading = asyncio.create_task(with_retry(hanging, Time().policy()).read("config", 1))
    await hanging.hanging.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


def test_jitter_is_full() -> None:
    policy = RetryPolicy(uniform=random.Random(1).random)
    pauses = [policy.pause(3) for _ in range(1000)]
    assert min(pauses) < 0.05
    assert 0.95 < max(pauses) <= 1.0


async def test_a_listing_of_keys_is_begun_again_whole() -> None:
    class BreaksOnce(MemoryDestination):
        begun = 0

        async def list(self, prefix):  # type: ignore[no-untyped-def]
            self.begun += 1
            async for item in super().list(prefix):
                yield item
                if self.begun == 1:
                    raise unreachable()

    inner = BreaksOnce("near", {"config": b"x", "destination": b"y"})
    assert sorted(await list_keys(with_retry(inner, Time().policy()), "")) == ["config", "destination"]
    assert inner.begun == 2
