"""Changes of keys that stop at any operation: every key opens each place alone that did before, nothing written is unreadable, and again finishes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from snapferry.errors import AccessDenied, DestinationDenied, DestinationUnreachable, SnapferryError
from snapferry.testing.faults import FailsNth, LosesFirstReplies, StopsAfter
from snapferry.testing.sources import MemorySource
from tests.support.keyholders import Keyholders
from tests.support.lab import BLOCK, FailsNthThroughAll, Lab, MakeLab, changed, volume

FIRST = volume(1, blocks=4, zeros=(1,))
SECOND = changed(FIRST, 2, [2])
THIRD = changed(SECOND, 3, [0])
ACTIONS = ("add", "remove", "rotate")


class ProcessDied(BaseException):
    """Nothing can be done about it any more."""


class _DoneAlready(Exception):
    """There is nothing left to do."""


class _Start:
    """A repository with four keys and one snapshot, to begin from again and again."""

    def __init__(self, lab: Lab, holders: Keyholders, first: str) -> None:
        self.lab = lab
        self.holders = holders
        self.first = first
        self._stores = lab.saved()

    def again(self) -> None:
        self.lab.go_back(self._stores)
        self.lab.wrappers.clear()

    async def change(self, action: str) -> None:
        async with self.holders.open("snapferry") as repository:
            if action == "add":
                await repository.keys.add(key_file=self.holders.file("added"), label="added")
            elif action == "remove":
                await repository.keys.remove("leaver")
            else:
                await repository.keys.rotate()

    async def settle(self, action: str) -> None:
        """Whatever happened: all works, and the same change run again leaves nothing half done."""
        self.lab.wrappers.clear()
        full = ["snapferry", "other"]
        contents = {self.first: FIRST}
        for name in full:
            await self.holders.assert_reads(name, contents)
        # A host may export before anybody with a full key has come by; whatever it writes, the other full key reads at each place.
        contents[(await self._export("host", SECOND)).id] = SECOND
        contents[(await self._export("snapferry", THIRD)).id] = THIRD
        await self.holders.assert_reads("other", contents)
        if action != "rotate":
            with contextlib.suppress(_DoneAlready):
                await self._change_again(action)
        await self.change("rotate")
        full += ["added"] if action == "add" else []
        for name in full:
            await self.holders.assert_reads(name, contents)
        if action == "remove":
            for place in self.lab.names:
                with pytest.raises(AccessDenied, match="was removed"):
                    async with self.holders.open("leaver", place):
                        pass
        near, far = ({key for key in self.lab.stores[name] if key.startswith("keys/")} for name in self.lab.names)
        assert near == far
        assert len(near) == (5 if action == "add" else 4)  # of the one that was removed, the note

    async def _change_again(self, action: str) -> None:
        try:
            await self.change(action)
        except SnapferryError as error:
            said = "no key slot is called" if action == "remove" else "opens the repository already"
            raise (_DoneAlready if said in str(error) else error) from error

    def is_unchanged(self) -> bool:
        return self.lab.stores == self._stores

    async def _export(self, name: str, data: bytes) -> Any:
        result = await self.holders.export(name, data)
        assert result.acknowledged == ("near", "far")
        return result


@pytest.fixture
async def start(make_lab: MakeLab) -> _Start:
    lab = await make_lab()
    holders = Keyholders(lab)
    async with lab.repository() as repository:
        await repository.keys.add(key_file=holders.file("other"), label="other")
        await repository.keys.add(key_file=holders.file("leaver"), label="leaver")
        await repository.keys.add(key_file=holders.file("host"), label="host", write_only=True)
        first = await repository.export(MemorySource(FIRST), volume="v", block_size=BLOCK)
    return _Start(lab, holders, first.id)


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
async def test_killed_at_any_operation(start: _Start, action: str) -> None:
    for left in range(1000):
        start.again()
        count = [left]
        for name in start.lab.names:
            start.lab.wrappers[name] = partial(StopsAfter, left=count, error=ProcessDied)
        died = await _dies(start.change(action))
        if died and start.is_unchanged():
            continue
        await start.settle(action)
        if not died:
            assert left > 20
            assert not start.is_unchanged()
            return
    pytest.fail("it never ended")


async def _dies(work: Coroutine[Any, Any, None]) -> bool:
    try:
        await work
    except ProcessDied:
        return True
    except BaseExceptionGroup as errors:
        if errors.subgroup(ProcessDied) is None:
            raise
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("operation", ["create", "list", "delete"])
@pytest.mark.parametrize("error", [partial(DestinationDenied, "denied"), partial(DestinationUnreachable, "gone")])
async def test_any_operation_of_one_destination_fails(start: _Start, action: str, operation: Any, error: Callable[[], Exception]) -> None:
    for nth in range(1, 1000):
        start.again()
        start.lab.wrappers["far"] = failing = FailsNthThroughAll(operation, nth, error, times=3)
        await start.change(action)  # One destination that fails is told, and fails nothing.
        await start.settle(action)
        if not failing.fired:
            return
    pytest.fail("the faults never ended")


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
async def test_every_create_loses_its_reply(start: _Start, action: str) -> None:
    for name in start.lab.names:
        start.lab.wrappers[name] = LosesFirstReplies
    await start.change(action)
    await start.settle(action)


@pytest.mark.parametrize("action", ACTIONS)
async def test_where_nothing_can_be_written_the_change_fails_and_nothing_is_different(start: _Start, action: str) -> None:
    for name in start.lab.names:
        start.lab.wrappers[name] = lambda inner: FailsNth(inner, "create", 1, partial(DestinationDenied, "denied"), times=99)
    before = {name: dict(store) for name, store in start.lab.stores.items()}
    with pytest.raises(AccessDenied, match="changed at no destination"):
        await start.change(action)
    assert before == start.lab.stores
