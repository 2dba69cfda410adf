from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.destination import Destination
from snapferry.destination.file import FileDestination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationDenied, DestinationFull, DestinationUnreachable
from snapferry.testing.faults import FailsNth, FullAfter, Hangs, LosesReply
from snapferry.transport import ByteBudget, Delivery, FanOut, Manner, RetryPolicy, TooFewCopies, with_retry


def memories(*names: str) -> list[MemoryDestination]:
    return [MemoryDestination(name) for name in names]


async def until(state: Callable[[], object]) -> None:
    while not state():
        await asyncio.sleep(0)


class Sent:
    """Counts how often each object was done with."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def expect(self, key: str) -> Callable[[], None]:
        self.done.setdefault(key, 0)

        def on_done() -> None:
            self.done[key] += 1

        return on_done

    @property
    def all_once(self) -> bool:
        return set(self.done.values()) == {1}


async def send_many(fanout: FanOut, sent: Sent, count: int, size: int = 10) -> None:
    for number in range(count):
        key = f"packs/ab/{number:04d}"
        await fanout.send(key, bytes([number % 256]) * size, size, sent.expect(key))


async def test_everything_reaches_everyone() -> None:
    stores, sent, results = memories("a", "b", "c"), Sent(), list[Delivery]()
    async with FanOut(stores, on_result=results.append) as fanout:
        await send_many(fanout, sent, 100)
        await fanout.drain()
        assert sent.all_once
    assert fanout.bytes_sent == {"a": 1000, "b": 1000, "c": 1000}
    assert {name: (channel.queued, channel.lag) for name, channel in fanout.statistics().items()} == {"a": (0, 0), "b": (0, 0), "c": (0, 0)}
    assert stores[0].store == stores[1].store == stores[2].store
    assert len(stores[0].store) == 100
    assert len(results) == 300
    assert all(result.created and result.size == 10 for result in results)


async def test_some_may_be_left_out() -> None:
    stores, sent = memories("a", "b"), Sent()
    async with FanOut(stores) as fanout:
        await fanout.send("packs/ab/x", b"x", 1, sent.expect("x"), only={"b", "unknown"})
        await fanout.send("packs/ab/y", b"y", 1, sent.expect("y"), only=())
    assert (set(stores[0].store), set(stores[1].store)) == (set(), {"packs/ab/x"})
    assert sent.all_once


async def test_a_taken_key_is_success() -> None:
    results: list[Delivery] = []
    async with FanOut([MemoryDestination("a", {"packs/ab/x": b"x"})], on_result=results.append) as fanout:
        await fanout.send("packs/ab/x", b"x", 1, lambda: None)
    assert [result.created for result in results] == [False]


async def test_a_lost_reply_is_success() -> None:
    policy = RetryPolicy(sleep=lambda _: asyncio.sleep(0))
    async with FanOut([with_retry(LosesReply(MemoryDestination("a")), policy)]) as fanout:
        await fanout.send("packs/ab/x", b"x", 1, lambda: None)
    assert fanout.bytes_sent == {"a": 1}


async def test_at_most_as_many_at_once_as_are_useful() -> None:
    under_way = most = 0

    class Counting(Hangs):
        async def create(self, key, data):  # type: ignore[no-untyped-def]
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await super().create(key, data)
            finally:
                under_way -= 1

    hanging = Counting(MemoryDestination("a"))
    sent = Sent()
    async with FanOut([hanging]) as fanout:
        await send_many(fanout, sent, 20)
        await until(lambda: under_way == 3)
        for _ in range(20):
            await asyncio.sleep(0)
        hanging.released.set()
    assert most == 3
    assert sent.all_once


async def test_a_slow_one_holds_up_nobody_but_through_the_budget() -> None:
    budget = ByteBudget(100)
    slow, fast = Hangs(MemoryDestination("slow")), MemoryDestination("fast")
    sent = Sent()

    async def feed(fanout: FanOut) -> None:
        for number in range(30):
            size = await budget.acquire(10)
            key = f"packs/ab/{number:04d}"
            done = sent.expect(key)

            def on_done(done: Callable[[], None] = done) -> None:
                done()
                budget.release(10)

            await fanout.send(key, bytes(size), size, on_done)

    async with FanOut([slow, fast]) as fanout:
        feeding = asyncio.create_task(feed(fanout))
        await until(lambda: len(fast.store) == 10 and budget.available == 0)
        assert not feeding.done()
        assert not slow.inner.store  # type: ignore[attr-defined]
        slow.released.set()
        await feeding
    assert len(fast.store) == 30
    assert budget.available == 100
    assert sent.all_once


async def test_a_failed_one_frees_what_waits_for_it() -> None:
    budget = ByteBudget(100)
    good = MemoryDestination("good")
    stores: list[Destination] = [FailsNth(MemoryDestination("bad"), "create", 3, lambda: DestinationDenied("no", "bad")), good]
    async with FanOut(stores) as fanout:
        for number in range(50):
            await budget.acquire(10)
            await fanout.send(f"packs/ab/{number}", bytes(10), 10, lambda: budget.release(10))
        await fanout.drain()
        assert fanout.alive == {"good"}
    assert isinstance(fanout.failed["bad"], DestinationDenied)
    assert len(good.store) == 50
    assert budget.available == 100
    assert fanout.bytes_sent["good"] == 500
    assert fanout.bytes_sent["bad"] < 50


async def test_a_failure_stops_the_same_ones_other_creates() -> None:
    class Mixed(Hangs):
        async def create(self, key, data):  # type: ignore[no-untyped-def]
            if key.endswith("2"):
                raise DestinationFull("full", "bad")
            return await super().create(key, data)

    bad, good, sent = Mixed(MemoryDestination("bad")), MemoryDestination("good"), Sent()
    async with FanOut([bad, good]) as fanout:
        await send_many(fanout, sent, 9)
        # The two that hang are never released: only their cancellation lets this end.
        await fanout.drain()
    assert fanout.alive == {"good"}
    assert sent.all_once
    assert len(good.store) == 9


async def test_too_few_is_said_at_once_and_by_the_right_code() -> None:
    stores: list[Destination] = [FullAfter(MemoryDestination("a"), 25), Hangs(MemoryDestination("b"))]
    sent = Sent()
    fanout = FanOut(stores, needed=2)
    with pytest.raises(TooFewCopies, match="a: no space") as caught:
        async with fanout:
            await send_many(fanout, sent, 5)
            await fanout.drain()
    assert caught.value.exit_code == 14
    assert set(caught.value.failures) == {"a"}
    assert sent.all_once
    with pytest.raises(TooFewCopies):
        await fanout.send("packs/ab/late", b"x", 1, sent.expect("late"))
    assert sent.all_once


async def test_who_is_enough_may_be_said_by_name() -> None:
    stores: list[Destination] = [FullAfter(MemoryDestination("a"), 25), MemoryDestination("b"), MemoryDestination("c")]
    sent = Sent()
    with pytest.raises(TooFewCopies, match="a: no space"):
        async with FanOut(stores, enough=lambda alive: "a" in alive) as fanout:
            await send_many(fanout, sent, 5)
            await fanout.drain()
    assert fanout.alive == {"b", "c"}
    assert sent.all_once


async def test_leaving_says_too_few_as_well() -> None:
    with pytest.raises(TooFewCopies):
        failing = FailsNth(MemoryDestination("a"), "create", 1, lambda: DestinationUnreachable("gone", "a"))
        async with FanOut([failing], manners={"a": Manner(patience=0)}) as fanout:
            await fanout.send("packs/ab/x", b"x", 1, lambda: None)


async def test_an_error_inside_stops_everything_and_stays_itself() -> None:
    hanging, sent = Hangs(MemoryDestination("a")), Sent()
    with pytest.raises(ZeroDivisionError):
        async with FanOut([hanging]) as fanout:
            await send_many(fanout, sent, 10)
            await hanging.hanging.wait()
            raise ZeroDivisionError
    assert sent.all_once
    assert not hanging.inner.store  # type: ignore[attr-defined]


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_a_cancellation_at_any_time_leaves_whole_objects_and_no_task(turns: int) -> None:
    stores = memories("a", "b")
    sent = Sent()

    async def work() -> None:
        async with FanOut(stores) as fanout:
            for number in range(30):
                key = f"packs/ab/{number:04d}"
                await fanout.send(key, bytes(10), 10, sent.expect(key))
                await asyncio.sleep(0)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not sent.done or sent.all_once
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancellation_while_draining() -> None:
    hanging, sent = Hangs(MemoryDestination("a")), Sent()

    async def work() -> None:
        async with FanOut([hanging]) as fanout:
            await send_many(fanout, sent, 10)

    task = asyncio.create_task(work())
    await hanging.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sent.all_once


async def test_a_buffer_is_let_go_with_its_last_cursor() -> None:
    class Pack(bytearray):
        pass

    hanging = Hangs(MemoryDestination("slow"))
    pack = Pack(10)
    gone = weakref.ref(pack)
    async with FanOut([MemoryDestination("fast"), hanging]) as fanout:
        await fanout.send("packs/ab/x", pack, 10, lambda: None)
        del pack
        await until(lambda: fanout.bytes_sent["fast"] == 10)
        assert gone() is not None
        hanging.released.set()
        await fanout.drain()
        await until(lambda: gone() is None)


async def test_a_kept_error_keeps_no_buffer(tmp_path: Path) -> None:
    class Pack(bytearray):
        pass

    file = FileDestination("file", str(tmp_path / "missing"))
    gone = []
    places: list[Destination] = [MemoryDestination("good"), FullAfter(MemoryDestination("full"), 0), file]
    async with FanOut(places, manners={"file": Manner(patience=0)}) as fanout:
        for number in range(3):
            pack = Pack(10)
            gone.append(weakref.ref(pack))
            await fanout.send(f"packs/ab/{number}", pack, 10, lambda: None)
            del pack
        await fanout.drain()
    assert set(fanout.failed) == {"full", "file"}
    gc.collect()
    assert [reference() for reference in gone] == [None, None, None]
    await file.close()


async def test_a_callback_that_breaks_is_heard_of() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with FanOut(memories("a", "b")) as fanout:
            await fanout.send("packs/ab/x", b"x", 1, broken)
            await fanout.drain()


async def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        FanOut(memories("a", "a"))
