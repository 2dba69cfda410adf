"""Every operation of a destination fails once, and every await is cancelled once; what was acknowledged stays restorable.

After SQLite's ``do_ioerr_test``: fail the Nth operation, for N from 1, until none fires.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from snapferry.destination import Destination
from snapferry.errors import DestinationDenied, DestinationFull, DestinationUnreachable, Fenced, SnapferryError
from snapferry.testing.faults import LosesFirstReplies
from snapferry.testing.sources import MemorySource
from snapferry.transport.wrapper import Wrapper
from tests.support.lab import BLOCK, FailsNthThroughAll, Lab, MakeLab, changed, volume

FIRST = volume(1, blocks=12)
SECOND = changed(FIRST, 2, [2, 8])


async def _settle(lab: Lab, expected: dict[str, bytes], otherwise: bytes = SECOND) -> None:
    """Whatever happened: what is listed restores from each place alone, and the next export makes everything whole.

    Snapshots that are not in ``expected`` are of ``otherwise``: a commit that was decided is finished by whoever exports next.
    """
    expected = defaultdict(lambda: otherwise, expected)
    lab.wrappers.clear()
    await lab.assert_restores_alone(expected)
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(SECOND), volume="v", block_size=BLOCK)
        assert result.acknowledged == ("near", "far")
        expected[result.id] = SECOND
        verified = await repository.verify(read_data=100)
        assert verified.damage == ()
        budget = repository._membership.tools.budget
        assert budget.available == budget.total
    await lab.assert_restores_alone(expected)


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["create", "read", "list", "read_into", "read_tail"])
@pytest.mark.parametrize(
    "error", [partial(DestinationFull, "full"), partial(DestinationDenied, "denied"), partial(DestinationUnreachable, "gone")]
)
async def test_any_operation_of_one_destination_fails(make_lab: MakeLab, operation: Any, error: Callable[[], Exception]) -> None:
    lab = await make_lab()
    async with lab.repository() as repository:
        first = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
    start = lab.saved()
    for nth in range(1, 1000):
        lab.go_back(start)
        lab.wrappers["far"] = failing = FailsNthThroughAll(operation, nth, error, times=3)
        expected = {first.id: FIRST}
        config = lab.machine()  # Each time from an empty cache, so that the same operations happen.
        lab.config = config
        try:
            async with lab.repository() as repository:
                result = await repository.export(MemorySource(SECOND), volume="v", block_size=BLOCK)
        except SnapferryError:
            pytest.fail("one destination that fails must not fail the export")
        assert "near" in result.acknowledged
        expected[result.id] = SECOND
        listed = result.acknowledged
        lab.wrappers.clear()
        for name in listed:
            async with lab.repository(name) as alone:
                assert await lab.contents(alone, result.id) == SECOND, (nth, name)
        await _settle(lab, expected)
        if not failing.fired:
            return
    pytest.fail("the faults never ended")


@pytest.mark.slow
async def test_every_create_loses_its_reply(make_lab: MakeLab) -> None:
    lab = await make_lab()

    lab.wrappers["far"] = LosesFirstReplies
    async with lab.repository() as repository:
        one = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
        two = await repository.export(MemorySource(SECOND), volume="v", block_size=BLOCK)
    assert (one.exit_code, two.exit_code) == (0, 0)
    await _settle(lab, {one.id: FIRST, two.id: SECOND})


class _CancelsNth(Wrapper):
    """The nth operation of any kind cancels the task that runs the export, just before or just after it is done."""

    def __init__(self, inner: Destination, state: dict[str, Any], *, after: bool) -> None:
        super().__init__(inner)
        self._state = state
        self._after = after

    def _tick(self) -> None:
        self._state["calls"] += 1
        if self._state["calls"] == self._state["nth"]:
            self._state["fired"] = True
            self._state["task"].cancel()

    async def create(self, key: str, data: Any) -> bool:
        if not self._after:
            self._tick()
            await asyncio.sleep(0)
        created = await self.inner.create(key, data)
        if self._after:
            self._tick()
            await asyncio.sleep(0)
        return created


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
async def test_cancelled_at_any_create(make_lab: MakeLab, after: bool) -> None:
    lab = await make_lab()
    for nth in range(1, 1000):
        for store in lab.stores.values():
            for key in [key for key in store if not key.startswith(("config", "keys", "destination"))]:
                del store[key]
        lab.config = lab.machine()
        state: dict[str, Any] = {"calls": 0, "nth": nth, "fired": False}
        for name in lab.names:
            lab.wrappers[name] = lambda inner, state=state: _CancelsNth(inner, state, after=after)  # type: ignore[misc]
        async with lab.repository() as repository:
            state["task"] = asyncio.create_task(repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK))
            await asyncio.gather(state["task"], return_exceptions=True)
            budget = repository._membership.tools.budget
            assert budget.available == budget.total
        await _settle(lab, {}, otherwise=FIRST)
        if not state["fired"]:
            assert state["task"].exception() is None
            return
    pytest.fail("the cancellations never ended")


@pytest.mark.slow
async def test_cancelled_after_any_number_of_turns_of_the_loop(make_lab: MakeLab) -> None:
    lab = await make_lab()
    finished = 0
    turns = 0
    while finished < 3:
        turns += 1 if turns < 60 else 7
        async with lab.repository() as repository:
            task = asyncio.create_task(repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            finished += not task.cancelled()
            budget = repository._membership.tools.budget
            assert budget.available == budget.total
            for item in await repository.list():
                assert await lab.contents(repository, item.snapshot.id) == FIRST
            if turns > 5000:
                break
    async with lab.repository() as repository:
        assert (await repository.verify(read_data=100)).damage == ()


@pytest.mark.slow
async def test_a_restore_cancelled_at_any_turn_goes_on(make_lab: MakeLab) -> None:
    lab = await make_lab()
    data = volume(3, blocks=40)
    async with lab.repository() as repository:
        await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        for turns in range(1, 200, 3):
            target = lab.directory / f"out-{turns}.img"
            task = asyncio.create_task(repository.restore("v", target))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            budget = repository._membership.tools.budget
            assert budget.available == budget.total
            await repository.restore("v", target)
            assert target.read_bytes() == data
            target.unlink()


async def test_two_exports_of_one_volume_at_once(make_lab: MakeLab) -> None:
    lab = await make_lab()
    async with lab.repository() as one, lab.repository() as other:
        results = await asyncio.gather(
            one.export(MemorySource(FIRST), volume="v", block_size=BLOCK),
            other.export(MemorySource(SECOND), volume="v", block_size=BLOCK),
            one.export(MemorySource(volume(9)), volume="w", block_size=BLOCK),
        )
        assert [result.exit_code for result in results] == [0, 0, 0]
        assert (await one.verify(read_data=100)).damage == ()
    await lab.assert_restores_alone({results[0].id: FIRST, results[1].id: SECOND, results[2].id: volume(9)})


async def test_a_fenced_session_makes_no_commit(make_lab: MakeLab) -> None:
    """A collector (or a clone of this writer) has created ``end`` first: it has decided."""
    lab = await make_lab()

    class Fences(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            if key.startswith("sessions/") and key.endswith("/end"):
                await self.inner.create(key, b"fenced by somebody else")
            return await self.inner.create(key, data)

    lab.wrappers["far"] = Fences
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
        assert result.acknowledged == ("near",)
        assert isinstance(result.failures["far"], Fenced)
    lab.wrappers["near"] = Fences
    async with lab.repository() as repository:
        with pytest.raises(Fenced) as caught:
            await repository.export(MemorySource(SECOND), volume="v")
    assert caught.value.exit_code == 11


async def test_a_slow_destination_holds_up_nobody_beyond_the_budget(make_lab: MakeLab) -> None:
    """The slow one takes nothing until the fast one has everything, but for what the budget bounds."""
    lab = await make_lab()
    released = asyncio.Event()

    class Slow(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            if key.startswith("packs/"):
                await released.wait()
            return await self.inner.create(key, data)

    lab.wrappers["far"] = Slow
    data = volume(5, blocks=100)
    async with lab.repository() as repository:
        task = asyncio.create_task(repository.export(MemorySource(data), volume="v", block_size=BLOCK))
        while not lab.packs("near") and not task.done():
            await asyncio.sleep(0.001)
        assert not lab.packs("far")
        released.set()
        result = await task
    assert result.exit_code == 0
    await lab.assert_restores_alone({result.id: data})
