"""``sync``: a destination that was away gets what it lacks, and nothing that it has let go."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools

import pytest

from snapferry.config import Price
from snapferry.errors import ConfigurationError, DestinationError, DestinationFull, DestinationUnreachable, SnapferryError, SnapshotNotFound
from snapferry.lifecycle.retention import RetentionPolicy
from snapferry.testing.faults import FullAfter, StopsAfter
from snapferry.testing.sources import MemorySource
from snapferry.types import Progress
from tests.support.gates import Gates, until
from tests.support.lab import BLOCK, FailsNthThroughAll, Lab, MakeLab, changed, volume

DATA = [volume(1, blocks=30)]
for _number in range(3):
    DATA.append(changed(DATA[-1], _number, range(_number, 30, 5)))


async def _fill(lab: Lab, *away: str) -> dict[str, bytes]:
    """Four snapshots, the last three made while these destinations are away; by id what they hold."""
    expected: dict[str, bytes] = {}
    for number, data in enumerate(DATA):
        lab.missing = set(away) if number else set()
        async with lab.repository() as repository:
            expected[(await repository.export(MemorySource(data), volume="v", block_size=BLOCK)).id] = data
    lab.missing = set()
    return expected


async def _all_well(lab: Lab) -> None:
    async with lab.repository() as repository:
        result = await repository.verify(read_data=100)
        assert (result.damage, result.unverified) == ((), {})


async def _is_finished(lab: Lab, expected: dict[str, bytes]) -> None:
    """A sync brings what is left: every destination has all of it, by itself."""
    async with lab.repository() as repository:
        assert (await repository.sync()).exit_code == 0
        assert {item.destinations for item in await repository.list()} == {lab.names}
    await lab.assert_restores_alone(expected)
    await _all_well(lab)


def _lies_there_unneeded(lab: Lab) -> Gates:
    """What the missing snapshots need lies at far, needed by nobody there: a prune would delete it. A sync halts at the gates."""
    for key in lab.packs("near"):
        lab.stores["far"].setdefault(key, lab.stores["near"][key])
    gates = Gates("create", "index/", 1)
    lab.wrappers["far"] = gates
    return gates


async def test_what_was_missed_is_brought_oldest_first_and_stands_alone(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab, "far")
    events: list[Progress] = []
    async with lab.repository() as repository:
        told = await repository.sync(dry_run=True)
        assert lab.saved() == lab.saved()
        result = await repository.sync(["far"], on_progress=events.append)
        (far,) = result.destinations
        assert (list(far.snapshots), far.failures, result.exit_code) == (list(expected)[1:], {}, 0)
        assert {item.destination: list(item.snapshots) for item in told.destinations} == {"near": [], "far": list(expected)[1:]}
        packs = sum(len(lab.stores["far"][key]) for key in lab.packs("far"))
        assert far.bytes_copied > told.destinations[1].bytes_copied > 0
        assert packs >= told.destinations[1].bytes_copied
        again = await repository.sync()
        assert [(item.snapshots, item.bytes_copied) for item in again.destinations] == [((), 0), ((), 0)]
    assert {event.operation for event in events} == {"copy"}
    assert events[-1].sent["far"] == events[-1].done == far.bytes_copied
    assert set(lab.packs("far")) == set(lab.packs("near"))
    await lab.assert_restores_alone(expected)
    await _all_well(lab)
    async with lab.repository() as repository:
        assert (await repository.export(MemorySource(DATA[-1]), volume="v")).blocks_new == 0


async def test_both_ways_and_from_whom(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far", "third")
    expected = await _fill(lab, "far", "third")
    lab.missing = {"near"}
    async with lab.repository() as repository:
        expected[(await repository.export(MemorySource(DATA[0]), volume="w", block_size=BLOCK)).id] = DATA[0]
        result = await repository.sync()
        assert result.exit_code == 3  # Nobody knows what near holds.
        assert set(result.failures) == {"near"}
    lab.missing = set()
    async with lab.repository() as repository:
        # From a source that has none of it nothing comes.
        assert [item.snapshots for item in (await repository.sync(["third"], sources=["far"])).destinations] == [()]
        result = await repository.sync()
        assert {item.destination: len(item.snapshots) for item in result.destinations} == {"near": 1, "far": 3, "third": 3}
        assert {item.destinations for item in await repository.list()} == {("near", "far", "third")}
    await lab.assert_restores_alone(expected)
    await _all_well(lab)


async def test_only_some(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab, "far")
    ids = list(expected)
    async with lab.repository() as repository:
        with pytest.raises(SnapshotNotFound):
            await repository.sync(snapshots=["nobody"])
        with pytest.raises(ConfigurationError):
            await repository.sync(["far"], sources=["far"])
        assert (await repository.sync(snapshots=["v~1"])).destinations[1].snapshots == (ids[2],)
        assert (await repository.sync(volumes=["v"])).destinations[1].snapshots == (ids[1], ids[3])
    await lab.assert_restores_alone(expected, "far")


async def test_what_was_forgotten_there_is_not_brought_back(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab)
    ids = list(expected)
    async with lab.repository() as repository:
        await repository.forget(policy=RetentionPolicy(keep_last=1), destinations=["far"])
        await repository.prune(destinations=["far"], lease=0.0)
    lab.config = lab.machine()  # One that has never seen them there.
    before = lab.saved()
    async with lab.repository() as repository:
        for dry in (True, False):
            result = await repository.sync(dry_run=dry)
            assert [(item.snapshots, item.packs, item.bytes_copied) for item in result.destinations] == [((), 0, 0)] * 2
        assert {item.snapshot.id: item.destinations for item in await repository.list()}[ids[0]] == ("near",)
    keys = {key for key in lab.stores["far"] if not key.startswith("sessions/")}
    assert keys == {key for key in before["far"] if not key.startswith("sessions/")}


async def test_packs_that_were_lost_are_put_back(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab)
    gone, torn = lab.packs("far")[:2]
    del lab.stores["far"][gone]
    lab.stores["far"][torn] = lab.stores["far"][torn][:-100]
    async with lab.repository() as repository:
        await repository.verify(read_data=100)  # Which remembers the torn one.
        assert (await repository.sync(dry_run=True)).destinations[1].packs == 2
        result = await repository.sync()
        assert [item.packs for item in result.destinations] == [0, 2]
        assert all(not replica.damage for replica in (await repository.show("v")).replicas)
    assert lab.stores["far"][torn] == lab.stores["near"][torn]
    await lab.assert_restores_alone(expected)
    await _all_well(lab)


async def test_prices(make_lab: MakeLab) -> None:
    lab = await make_lab()
    await _fill(lab, "far")
    near, far = lab.config.destinations
    priced = dataclasses.replace(near, price=Price(egress_gb=1e9)), dataclasses.replace(far, price=Price(store_gb_month=2e9))
    lab.config = dataclasses.replace(lab.config, destinations=priced)
    async with lab.repository() as repository:
        (_, told) = (await repository.sync(dry_run=True)).destinations
    assert told.price_once == pytest.approx(told.bytes_copied)
    assert told.price_month == pytest.approx(2 * told.bytes_copied)


async def test_a_full_destination_says_so_and_the_next_sync_finishes(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab, "far")
    lab.wrappers["far"] = lambda inner: FullAfter(inner, 200_000)
    async with lab.repository() as repository:
        result = await repository.sync()
        assert result.exit_code == 3
        assert any(isinstance(error, DestinationFull) for error in result.destinations[1].failures.values())
    lab.wrappers.clear()
    await lab.assert_restores_alone(expected)
    await _is_finished(lab, expected)


async def test_a_prune_waits_for_a_sync_that_builds_on_what_it_would_delete(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab, "far")
    gates = _lies_there_unneeded(lab)
    async with lab.repository() as repository:
        syncing = asyncio.create_task(repository.sync(["far"]))
        await until(lambda: gates.reached)
        del lab.wrappers["far"]
        async with lab.repository() as other:
            pruning = asyncio.create_task(other.prune(destinations=["far"]))
            await until(lambda: any(key.startswith("collect/") for key in lab.stores["far"]))
            gates.release()
            first = (await syncing).destinations[0]
            await pruning
    # The one that was under way is there; the others need what that prune was deleting meanwhile.
    assert list(first.snapshots) == list(expected)[1:2]
    assert all("prune" in str(error) for error in first.failures.values())
    await lab.assert_restores_alone(expected)
    async with lab.repository() as repository:
        await repository.prune(lease=0.0)
    await _is_finished(lab, expected)


async def test_a_sync_that_a_prune_has_fenced_loses_nothing(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab, "far")
    gates = _lies_there_unneeded(lab)
    async with lab.repository() as repository:
        syncing = asyncio.create_task(repository.sync(["far"]))
        await until(lambda: gates.reached)
        del lab.wrappers["far"]
        async with lab.repository() as other:
            assert (await other.prune(destinations=["far"], lease=0.0)).exit_code == 0
        gates.release()
        first = await syncing
    assert first.exit_code == 3  # Fenced once; what the prune has deleted is not put back before there was another one.
    await lab.assert_restores_alone(expected)
    async with lab.repository() as repository:
        await repository.prune(lease=0.0)
    await _is_finished(lab, expected)


async def test_every_operation_fails_once_and_the_next_sync_finishes(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab, "far")
    behind = lab.saved()
    for operation in ("create", "delete", "list", "read", "read_into", "read_tail"):
        for nth in itertools.count(1, 2):
            lab.go_back(behind)
            lab.config = lab.machine()
            where = "far" if operation in ("create", "delete", "list") else "near"
            lab.wrappers[where] = failing = FailsNthThroughAll(operation, nth, lambda: DestinationError("it failed", "far"), times=2)
            with contextlib.suppress(SnapferryError):
                async with lab.repository() as repository:
                    await repository.sync(["far"])
            lab.wrappers.clear()
            await _stands(lab, expected)
            if not failing.fired:
                break


async def test_killed_or_cancelled_anywhere_the_next_sync_finishes(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _fill(lab, "far")
    behind = lab.saved()
    for error in (asyncio.CancelledError, lambda: DestinationUnreachable("the machine died")):
        for after in itertools.count(1, 5):
            lab.go_back(behind)
            lab.config = lab.machine()
            left = [after]
            for name in lab.names:
                lab.wrappers[name] = lambda inner, left=left, error=error: StopsAfter(inner, left, error)  # type: ignore[misc]
            with contextlib.suppress(asyncio.CancelledError, SnapferryError):
                async with lab.repository() as repository:
                    await repository.sync(["far"])
            lab.wrappers.clear()
            await _stands(lab, expected)
            if left[0] > 0:
                break


async def _stands(lab: Lab, expected: dict[str, bytes]) -> None:
    """Whatever is listed at the place that was behind is whole there, and the next sync brings the rest."""
    async with lab.repository() as repository:
        damage = (await repository.verify(destination="far")).damage
        assert [item for item in damage if not item.object.startswith("sessions/") and "next export" not in item.reason] == []
        result = await repository.sync(["far"])
        assert result.exit_code == 0
        assert {item.destinations for item in await repository.list()} == {lab.names}
    assert lab.packs("far") == lab.packs("near")
    latest = list(expected)[-1]
    async with lab.repository("far") as alone:
        assert await lab.contents(alone, latest) == expected[latest]
