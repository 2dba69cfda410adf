"""What a fan-out does with destinations that hold others up, by their manner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry import _core
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationDetached, DestinationUnreachable
from snapferry.testing.faults import FailsNth, FullAfter, Hangs, StopsAfter, Trickles
from snapferry.transport import ByteBudget, FanOut, Manner, Spool, headway, leftovers

SIZE = 1 << 10


def body(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


def key(number: int) -> str:
    digits = _core.blake3(body(number)).hex()
    return f"packs/{digits[:2]}/{digits}"


async def until(state: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not state():
            await asyncio.sleep(0.001)


async def feed(fanout: FanOut, budget: ByteBudget, numbers: range) -> None:
    for number in numbers:
        await budget.acquire(SIZE)
        await fanout.send(key(number), body(number), SIZE, lambda: budget.release(SIZE))


def spooled(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("packs/*/*") if path.is_file())


async def test_a_hanging_one_is_spooled_for_and_gets_it_all_later(tmp_path: Path) -> None:
    budget = ByteBudget(12 * SIZE)
    fast, slow = MemoryDestination("fast"), Hangs(MemoryDestination("slow"))
    async with Spool(str(tmp_path), 1 << 20) as spool:
        async with FanOut([fast, slow], manners={"slow": Manner("spool")}, budget=budget, spool=spool) as fanout:
            await feed(fanout, budget, range(60))
            await until(lambda: len(fast.store) == 60)
            state = fanout.statistics()["slow"]
            assert state.state == "spooling"
            assert state.bytes == 0
            assert state.queued == state.lag == 60 * SIZE
            assert len(spooled(tmp_path)) >= 60 - 12
            slow.released.set()
            await fanout.drain()
        assert slow.inner.store == fast.store == {key(number): body(number) for number in range(60)}  # type: ignore[attr-defined]
        assert budget.available == budget.total
        assert spool.statistics().used == 0
        assert spool.statistics().peak >= 48 * SIZE
    assert list(tmp_path.iterdir()) == []


async def test_where_all_hang_and_are_spooled_for_the_source_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though each began to hang at another moment, and what is taken back from one is just being tried again at the other."""
    monkeypatch.setattr(headway, "STALLED", 0.3)
    budget = ByteBudget(12 * SIZE)
    early = Hangs(MemoryDestination("early"), "create")
    late = Hangs(Trickles(MemoryDestination("late"), 6 * SIZE), "create", lambda name: name != key(0))
    manners = {"early": Manner("spool"), "late": Manner("spool")}
    async with Spool(str(tmp_path), 1 << 20) as spool:
        async with FanOut([early, late], manners=manners, budget=budget, spool=spool) as fanout:
            async with asyncio.timeout(30):
                await feed(fanout, budget, range(60))
            assert len(spooled(tmp_path)) >= 60 - 13
            for hanging in (early, late):
                hanging.released.set()
            await fanout.reached("early", fanout.mark())
            assert fanout.alive == {"early", "late"}
            fanout.fail("late", DestinationUnreachable("it was slow on purpose", "late"))
        assert early.inner.store == {key(number): body(number) for number in range(60)}  # type: ignore[attr-defined]
        assert budget.available == budget.total


async def test_one_that_needs_long_for_each_is_not_interrupted_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headway, "STALLED", 0.2)
    budget, store = ByteBudget(4 * SIZE), MemoryDestination("slow")
    slow, fast = Trickles(store, SIZE / 0.5), Trickles(MemoryDestination("fast"), SIZE / 0.1)
    async with (
        Spool(str(tmp_path), 1 << 20) as spool,
        FanOut([fast, slow], manners={"slow": Manner("spool")}, budget=budget, spool=spool) as fanout,
    ):
        await feed(fanout, budget, range(80))
        # Four each 0.5 s go to it one after another, less what was taken back at first.
        assert len(store.store) >= 5
        fanout.fail("slow", DestinationUnreachable("it was slow on purpose", "slow"))


async def test_a_hanging_one_is_detached_and_the_others_go_on() -> None:
    budget = ByteBudget(12 * SIZE)
    fast, slow = MemoryDestination("fast"), Hangs(MemoryDestination("slow"))
    async with FanOut([fast, slow], manners={"slow": Manner("detach")}, budget=budget) as fanout:
        await feed(fanout, budget, range(60))
        await fanout.drain()
        assert fanout.alive == {"fast"}
        assert isinstance(fanout.failed["slow"], DestinationDetached)
        assert "destination sync slow" in str(fanout.failed["slow"])
        assert fanout.statistics()["slow"].state == "detached"
    assert len(fast.store) == 60
    assert budget.available == budget.total


async def test_one_that_fails_is_detached_at_once_where_that_is_its_manner() -> None:
    fast = MemoryDestination("fast")
    failing = FailsNth(MemoryDestination("slow"), "create", 2, lambda: DestinationUnreachable("gone", "slow"))
    budget = ByteBudget(12 * SIZE)
    async with FanOut([fast, failing], manners={"slow": Manner("detach")}, budget=budget) as fanout:
        await feed(fanout, budget, range(20))
        await fanout.drain()
    assert isinstance(fanout.failed["slow"], DestinationDetached)
    assert len(fast.store) == 20


async def test_one_that_is_nearly_as_fast_is_not_detached() -> None:
    budget = ByteBudget(8 * SIZE)
    fast, slow = Trickles(MemoryDestination("fast"), 40 * SIZE), Trickles(MemoryDestination("slow"), 39 * SIZE)
    manners = {"fast": Manner("detach"), "slow": Manner("detach")}
    async with FanOut([fast, slow], manners=manners, budget=budget) as fanout:
        await feed(fanout, budget, range(200))
        await fanout.drain()
        assert fanout.alive == {"fast", "slow"}


async def test_what_fails_for_a_while_is_tried_again_until_it_succeeds() -> None:
    failing = FailsNth(MemoryDestination("a"), "create", 2, lambda: DestinationUnreachable("away", "a"), times=3)
    budget = ByteBudget(8 * SIZE)
    async with FanOut([failing], manners={"a": Manner(patience=20)}, budget=budget) as fanout:
        await feed(fanout, budget, range(12))
        await fanout.drain()
        assert not fanout.failed
    assert failing.fired == 3
    assert len(failing.inner.store) == 12  # type: ignore[attr-defined]


async def test_what_goes_on_failing_is_given_up_when_patience_is_at_its_end() -> None:
    def gone() -> Exception:
        return DestinationUnreachable("gone", "a")

    good, budget = MemoryDestination("good"), ByteBudget(8 * SIZE)
    async with FanOut([StopsAfter(MemoryDestination("a"), [3], gone), good], manners={"a": Manner(patience=1.0)}, budget=budget) as fanout:
        await feed(fanout, budget, range(30))
        await fanout.drain()
        assert fanout.alive == {"good"}
    assert isinstance(fanout.failed["a"], DestinationUnreachable)
    assert len(good.store) == 30
    assert budget.available == budget.total


async def test_for_one_that_is_absent_all_is_left_in_the_spool(tmp_path: Path) -> None:
    budget, fast = ByteBudget(8 * SIZE), MemoryDestination("fast")
    away = DestinationUnreachable("no route", "away")
    async with Spool(str(tmp_path), 1 << 20) as spool:
        how = {"manners": {"away": Manner("spool")}, "absent": {"away": away}, "budget": budget, "spool": spool}
        async with FanOut([fast], **how) as fanout:  # type: ignore[arg-type]
            await feed(fanout, budget, range(30))
            await fanout.drain()
            assert fanout.statistics()["away"].state == "spooling"
            assert fanout.alive == {"fast"}
    assert len(fast.store) == 30
    assert budget.available == budget.total
    async with leftovers(str(tmp_path)) as found:
        (store,) = found.sources.values()
        for number in range(30):
            assert await store.read(key(number), SIZE) == body(number)
        async with leftovers(str(tmp_path)) as again:
            assert not again.sources, "two have taken over one spool"
        await found.discard()
    assert list(tmp_path.iterdir()) == []


async def test_what_is_left_when_it_fails_stays_in_the_spool(tmp_path: Path) -> None:
    def gone() -> Exception:
        return DestinationUnreachable("gone", "slow")

    budget, fast = ByteBudget(8 * SIZE), MemoryDestination("fast")
    slow = StopsAfter(MemoryDestination("slow"), [0], gone)
    async with Spool(str(tmp_path), 1 << 20) as spool:
        async with FanOut([fast, slow], manners={"slow": Manner("spool", patience=3.0)}, budget=budget, spool=spool) as fanout:
            await feed(fanout, budget, range(30))
            await fanout.drain()
        assert isinstance(fanout.failed["slow"], DestinationUnreachable)
    assert len(fast.store) == 30
    assert spooled(tmp_path)
    assert budget.available == budget.total


async def test_a_spool_that_is_full_detaches(tmp_path: Path) -> None:
    budget, fast, slow = ByteBudget(8 * SIZE), MemoryDestination("fast"), Hangs(MemoryDestination("slow"))
    async with Spool(str(tmp_path), 10 * SIZE) as spool:
        async with FanOut([fast, slow], manners={"slow": Manner("spool")}, budget=budget, spool=spool) as fanout:
            await feed(fanout, budget, range(60))
            await fanout.drain()
        assert isinstance(fanout.failed["slow"], DestinationDetached)
        assert "may hold no more" in str(fanout.failed["slow"])
        assert spool.statistics().peak <= 10 * SIZE
    assert len(fast.store) == 60
    assert budget.available == budget.total


async def test_two_that_are_spooled_for_share_one_copy(tmp_path: Path) -> None:
    budget, fast = ByteBudget(12 * SIZE), MemoryDestination("fast")
    slow = [Hangs(MemoryDestination(name)) for name in ("one", "two")]
    async with Spool(str(tmp_path), 1 << 20) as spool:
        manners = {"one": Manner("spool"), "two": Manner("spool")}
        async with FanOut([fast, *slow], manners=manners, budget=budget, spool=spool) as fanout:
            await feed(fanout, budget, range(40))
            await until(lambda: len(fast.store) == 40)
            assert spool.statistics().used <= 40 * SIZE
            slow[0].released.set()
            await until(lambda: len(slow[0].inner.store) == 40)  # type: ignore[attr-defined]
            slow[1].released.set()
            await fanout.drain()
        assert spool.statistics().used == 0
    assert slow[1].inner.store == fast.store  # type: ignore[attr-defined]


async def test_what_comes_after_waits_for_what_went_before_it_at_each_by_itself() -> None:
    class SlowFirst(Hangs):
        async def create(self, key, data):  # type: ignore[no-untyped-def]
            if key == "index/after":
                assert self.released.is_set(), "sent before what it names"
            return await super().create(key, data)

    fast, slow = MemoryDestination("fast"), SlowFirst(MemoryDestination("slow"), "create", lambda key: key == "packs/ab/0")
    async with FanOut([fast, slow]) as fanout:
        for number in range(3):
            await fanout.send(f"packs/ab/{number}", b"x", 1, lambda: None)
        mark = fanout.mark()
        await fanout.send("index/after", b"y", 1, lambda: None, after=mark)
        await fanout.send("packs/ab/later", b"z", 1, lambda: None)
        await fanout.reached("fast", fanout.mark())
        assert "index/after" in fast.store
        await until(lambda: "packs/ab/later" in slow.inner.store)  # type: ignore[attr-defined]
        assert "index/after" not in slow.inner.store  # type: ignore[attr-defined]
        slow.released.set()
        await fanout.reached("slow", mark + 1)
        assert "index/after" in slow.inner.store  # type: ignore[attr-defined]


async def test_reached_says_why_not() -> None:
    full = FullAfter(MemoryDestination("full"), 0)
    async with FanOut([MemoryDestination("good"), full]) as fanout:
        await fanout.send("packs/ab/x", b"x", 1, lambda: None)
        with pytest.raises(Exception, match="full: no space"):
            await fanout.reached("full", fanout.mark())
        await fanout.reached("good", fanout.mark())


@pytest.mark.parametrize("turns", range(0, 60, 4))
async def test_a_cancellation_while_it_spools_leaves_no_task_and_no_byte(tmp_path: Path, turns: int) -> None:
    budget = ByteBudget(6 * SIZE)
    slow = Hangs(MemoryDestination("slow"))

    async def work() -> None:
        async with (
            Spool(str(tmp_path), 1 << 20) as spool,
            FanOut([MemoryDestination("fast"), slow], manners={"slow": Manner("spool")}, budget=budget, spool=spool) as fanout,
        ):
            await feed(fanout, budget, range(40))
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    if turns:
        await slow.hanging.wait()
    for _ in range(turns):
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
    assert budget.available == budget.total
