"""Every operation of a forget and a prune fails once, and every await is cancelled once: what is kept restores, and the next prune finishes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from snapferry.destination import Destination
from snapferry.errors import DestinationError, SnapferryError
from snapferry.lifecycle.retention import RetentionPolicy
from snapferry.testing.faults import FailsNth
from snapferry.testing.sources import MemorySource
from tests.support.lab import BLOCK, FailsNthThroughAll, Lab, MakeLab, changed, volume

LATEST = RetentionPolicy(keep_last=1)
DATA = [volume(1, blocks=20)]
for _number in range(3):
    DATA.append(changed(DATA[-1], _number, range(_number, 20, 4)))


async def _filled(lab: Lab) -> dict[str, bytes]:
    expected: dict[str, bytes] = {}
    async with lab.repository() as repository:
        for data in DATA:
            expected[(await repository.export(MemorySource(data), volume="v", block_size=BLOCK)).id] = data
    return expected


async def _forget_and_prune(lab: Lab) -> None:
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST)
        result = await repository.prune(lease=0.0)
        for error in result.failures.values():
            raise error


async def _check(lab: Lab, expected: dict[str, bytes]) -> None:
    """Whatever is listed restores from each place alone; the latest is; and a prune that nothing disturbs gives all back."""
    latest = list(expected)[-1]
    async with lab.repository() as repository:
        listed = {item.snapshot.id: item.destinations for item in await repository.list()}
        assert listed[latest] == lab.names
        # A place where the collection was not concluded still tells so; none has lost anything.
        assert [item for item in (await repository.verify(read_data=100)).damage if not item.object.startswith("sessions/")] == []
    await lab.assert_restores_alone(expected)
    for _ in range(3):
        await _forget_and_prune(lab)
    await lab.assert_restores_alone({latest: expected[latest]})
    assert lab.packs("near") == lab.packs("far")
    async with lab.repository() as repository:
        assert (await repository.verify(read_data=100)).damage == ()
        assert (await repository.export(MemorySource(expected[latest]), volume="v")).blocks_new == 0


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["create", "delete", "read", "read_into", "list"])
async def test_every_operation_fails_once(make_lab: MakeLab, operation: str) -> None:
    lab = await make_lab()
    expected = await _filled(lab)
    filled = lab.saved()
    for nth in itertools.count(1):
        lab.go_back(filled)
        lab.config = lab.machine()
        lab.wrappers["near"] = failing = FailsNthThroughAll(operation, nth, lambda: DestinationError("it failed", "near"))
        try:
            await _forget_and_prune(lab)
        except SnapferryError:
            pass
        finally:
            lab.wrappers.clear()
        if not failing.fired:
            break
        await _check(lab, expected)
    assert nth > 1


class _Cancels:
    """Cancels a task after its destinations have begun a number of operations."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.task: asyncio.Task[None] | None = None

    def wrap(self) -> Callable[[Destination], Destination]:
        def wrapped(inner: Destination) -> Destination:
            return FailsNth(_Counted(inner, self), "any", 0, lambda: DestinationError("never"))

        return wrapped


class _Counted(FailsNth):
    def __init__(self, inner: Destination, cancels: _Cancels) -> None:
        super().__init__(inner, "any", 0, lambda: DestinationError("never"))
        self._cancels = cancels

    async def before(self, operation: str, key: str) -> None:
        self._cancels.left -= 1
        if self._cancels.left == 0 and self._cancels.task is not None:
            self._cancels.task.cancel()
            await asyncio.sleep(0)


@pytest.mark.slow
async def test_cancelled_before_every_operation(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _filled(lab)
    filled = lab.saved()
    for after in itertools.count(1):
        cancels = _Cancels(after)
        lab.go_back(filled)
        lab.config = lab.machine()
        for name in lab.names:
            lab.wrappers[name] = cancels.wrap()
        cancels.task = asyncio.create_task(_forget_and_prune(lab))
        await asyncio.wait([cancels.task])
        lab.wrappers.clear()
        if not cancels.task.cancelled():
            await cancels.task
            break
        if after % 3 == 0:  # The check is what takes long.
            await _check(lab, expected)
    assert after > 100
