"""``forget`` and ``prune`` through the facade: what goes, what stays, and that what stays restores from each place alone."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from pathlib import Path

import pytest

from snapferry.destination import Capabilities, Destination
from snapferry.errors import ConfigurationError, DamageError, DestinationUnreachable, Fenced, SnapferryError, SnapshotNotFound
from snapferry.lifecycle.retention import RetentionPolicy
from snapferry.repository import names, objects
from snapferry.repository.collections import Condemned, publish
from snapferry.repository.sessions import Session
from snapferry.testing.faults import FailsNth
from snapferry.testing.sources import MemorySource
from snapferry.transport import Wrapper
from tests.support.lab import BLOCK, EndsWhenLetGo, Lab, MakeLab, changed, volume

LATEST = RetentionPolicy(keep_last=1)


def _stored(lab: Lab, name: str) -> int:
    """Bytes of all packs at a place."""
    return sum(len(lab.stores[name][key]) for key in lab.packs(name))


async def _series(lab: Lab, count: int = 4, *, blocks: int = 60, each: int = 12) -> dict[str, bytes]:
    """Snapshots of one volume, each with some blocks changed; by id what they hold."""
    data = volume(1, blocks=blocks)
    expected: dict[str, bytes] = {}
    async with lab.repository() as repository:
        for number in range(count):
            expected[(await repository.export(MemorySource(data), volume="v", block_size=BLOCK)).id] = data
            data = changed(data, number, random.Random(number).sample(range(blocks), each))
    return expected


async def _fresh(make_lab: MakeLab, lab: Lab, kept: dict[str, bytes]) -> int:
    """What a repository takes that only ever held these."""
    other = Lab(lab.directory / "fresh", pytest.MonkeyPatch(), ["near"])
    other.directory.mkdir()
    await other.create()
    async with other.repository() as repository:
        for data in kept.values():
            await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
    return _stored(other, "near")


async def test_what_was_forgotten_is_given_back_and_the_rest_restores_from_each_place_alone(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _series(lab, 6)
    async with lab.repository() as repository:
        before = _stored(lab, "near")
        result = await repository.forget(policy=RetentionPolicy(keep_last=2))
        assert [item.destinations for item in result.forgotten] == [("near", "far")] * 4
        assert result.exit_code == 0
        assert len(await repository.list()) == 2
        assert _stored(lab, "near") == before
        pruned = await repository.prune()
        assert pruned.exit_code == 0
        assert {item.destination for item in pruned.destinations} == {"near", "far"}
        assert lab.packs("near") == lab.packs("far")
        assert _stored(lab, "near") < before
        assert before - _stored(lab, "near") == pytest.approx(pruned.destinations[0].bytes_freed, rel=0.1)
        assert (await repository.verify(read_data=100)).exit_code == 0
        details = await repository.show("v")
        assert [replica.packs_missing for replica in details.replicas] == [0, 0]
        again = await repository.prune()
        assert [item.packs_deleted for item in again.destinations] == [0, 0]
    kept = dict(list(expected.items())[-2:])
    await lab.assert_restores_alone(kept)
    for name in lab.names:
        async with lab.repository(name) as alone:
            assert {item.snapshot.id for item in await alone.list()} == set(kept)
            assert (await alone.verify(read_data=100)).exit_code == 0


async def test_within_ten_per_cent_of_a_fresh_repository(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far")
    expected = await _series(lab, 8, blocks=200, each=60)
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST)
        await repository.prune()
    kept = dict(list(expected.items())[-1:])
    await lab.assert_restores_alone(kept)
    assert _stored(lab, "near") <= 1.1 * await _fresh(make_lab, lab, kept)


async def test_an_export_after_a_prune_finds_what_was_copied(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _series(lab, 5)
    latest = list(expected.values())[-1]
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST)
        pruned = await repository.prune()
        assert pruned.destinations[0].packs_repacked > 0
        same = await repository.export(MemorySource(latest), volume="v")
        assert (same.blocks_new, same.bytes_new) == (0, 0)
        # From a blank cache too.
    async with lab.repository("near", "far") as blank:
        third = await blank.export(MemorySource(latest), volume="v")
        assert third.blocks_new == 0
        restored = await blank.verify(read_data=100)
        assert restored.exit_code == 0
    await lab.assert_restores_alone(dict.fromkeys([*expected, same.id, third.id], latest))


async def test_moved_blocks_are_no_damage(make_lab: MakeLab, tmp_path: Path) -> None:
    lab = await make_lab()
    expected = await _series(lab, 5)
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST)
        await repository.prune()
    async with lab.repository("near", "far") as blank:
        result = await blank.restore("v", tmp_path / "out")
        assert (result.exit_code, result.damage) == (0, ())
        assert (tmp_path / "out").read_bytes() == list(expected.values())[-1]


async def test_a_dry_run_removes_nothing_and_says_what_would_go(make_lab: MakeLab) -> None:
    lab = await make_lab()
    await _series(lab, 4)
    before = {name: dict(store) for name, store in lab.stores.items()}
    async with lab.repository() as repository:
        told = await repository.forget(policy=LATEST, dry_run=True)
        assert len(told.forgotten) == 3
        assert lab.stores == before
        await repository.forget(policy=LATEST)
        snapshot = {name: dict(store) for name, store in lab.stores.items()}
        dry = await repository.prune(dry_run=True)
        assert lab.stores == snapshot
        assert told.bytes_freed == {item.destination: item.bytes_freed for item in dry.destinations}
        sizes = _stored(lab, "near")
        await repository.prune()
        assert sizes - _stored(lab, "near") == pytest.approx(told.bytes_freed["near"], rel=0.1)


async def test_single_snapshots_are_forgotten_by_name(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _series(lab, 3)
    first, second, third = expected
    async with lab.repository() as repository:
        with pytest.raises(ConfigurationError, match="is a volume"):
            await repository.forget(["v"])
        with pytest.raises(ConfigurationError, match="say which"):
            await repository.forget([])
        with pytest.raises(ConfigurationError, match="at least one --keep"):
            await repository.forget(policy=RetentionPolicy())
        with pytest.raises(SnapshotNotFound):
            await repository.forget(["w"], policy=LATEST)
        await repository.forget(["v~1", first[:12]])
        assert [item.snapshot.id for item in await repository.list()] == [third]
        await repository.prune()
        # On purpose: nobody is told that a destination was rolled back.
        assert (await repository.verify(read_data=100)).damage == ()
    await lab.assert_restores_alone({third: expected[third]})
    assert second not in {key.rpartition("/")[2] for key in lab.stores["near"] if key.startswith("snapshots/")}


async def test_each_destination_keeps_its_own(make_lab: MakeLab) -> None:
    lab = await make_lab()
    expected = await _series(lab, 4)
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST, destinations=["near"])
        pruned = await repository.prune()
        assert pruned.exit_code == 0
        held = {item.snapshot.id: item.destinations for item in await repository.list()}
        assert list(held.values()) == [("far",)] * 3 + [("near", "far")]
        assert (await repository.verify(read_data=100)).damage == ()
        # What is gone at one place is not built on: both hold the new one whole.
        data = next(iter(expected.values()))
        expected[(await repository.export(MemorySource(data), volume="v")).id] = data
    await lab.assert_restores_alone(expected)


async def test_an_interrupted_exports_packs_go_and_what_it_left_is_tidied(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    expected = await _series(lab, 2)
    async with lab.repository() as repository:
        lab.wrappers["near"] = lambda inner: FailsNth(inner, "create", 3, lambda: DestinationUnreachable("gone"), times=1000)
        with pytest.raises(SnapferryError):
            await repository.export(MemorySource(volume(99, blocks=100)), volume="w", block_size=BLOCK)
        del lab.wrappers["near"]
        live = [key for key in lab.stores["near"] if key.startswith("sessions/") and key.endswith("/0")]
        assert len(live) == 3
        pruned = await repository.prune(lease=0.0)
        assert pruned.exit_code == 0
        await repository.prune(lease=0.0)
        await repository.prune(lease=0.0)
        # Two snapshots' sessions and the dead one are gone; commits stay.
        assert not [key for key in lab.stores["near"] if key.startswith("sessions/")]
        assert len([key for key in lab.stores["near"] if key.startswith("collect/")]) == 3
        assert (await repository.verify(read_data=100)).damage == ()
    await lab.assert_restores_alone(expected)


async def test_a_live_export_is_waited_for_and_keeps_what_it_uses(make_lab: MakeLab) -> None:
    """It began before the collection and builds on a snapshot that is forgotten meanwhile."""
    lab = await make_lab("near")
    data = volume(1, blocks=60)
    async with lab.repository() as repository:
        first = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        second = changed(data, 5, range(0, 60, 3))
        source = EndsWhenLetGo(second)
        exporting = asyncio.create_task(repository.export(source, volume="v"))
        await source.reading.wait()
        await repository.forget([first.id])
        pruning = asyncio.create_task(repository.prune(lease=60.0))
        while not any(key.startswith("collect/") for key in lab.stores["near"]):
            await asyncio.sleep(0)
        assert not pruning.done()
        source.released.set()
        made = await exporting
        assert (await pruning).exit_code == 0
        assert (await repository.verify(read_data=100)).damage == ()
    await lab.assert_restores_alone({made.id: second})


async def test_an_export_that_was_given_up_ends_with_eleven(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    async with lab.repository() as repository:
        source = EndsWhenLetGo(volume(1))
        exporting = asyncio.create_task(repository.export(source, volume="v", block_size=BLOCK))
        await source.reading.wait()
        await repository.prune(lease=0.0)
        source.released.set()
        with pytest.raises(Fenced) as caught:
            await exporting
        assert caught.value.exit_code == 11
        assert await repository.list() == []
        done = await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
    await lab.assert_restores_alone({done.id: volume(1)})


async def test_condemned_packs_are_not_built_on(make_lab: MakeLab) -> None:
    """A collection that somebody left open: what it condemned is stored again by the next export, and then deleted by the next prune."""
    lab = await make_lab("near", "far")
    expected = await _series(lab, 1)
    ((first, data),) = expected.items()
    async with lab.repository() as repository:
        keyring = repository._membership.members.keyring
        orphan = await repository.export(MemorySource(volume(77)), volume="w", block_size=BLOCK)
        needed = {names.parse_pack(key) for key in lab.packs("near")}
        await repository.forget([orphan.id])
        for name in lab.names:
            place: Destination = repository._membership.replicas[name]
            assert await publish(keyring, place, Condemned(1, frozenset(pack for pack in needed if pack), frozenset()))
        again = await repository.export(MemorySource(volume(77)), volume="w", block_size=BLOCK)
        assert again.blocks_new == orphan.blocks_new
        # The other volume's snapshot needs some of what was condemned: that is rescued.
        await repository.prune(lease=0.0)
        assert (await repository.verify(read_data=100)).damage == ()
    await lab.assert_restores_alone({first: data, again.id: volume(77)})


async def test_a_session_that_never_accepts_is_waited_for(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    await _series(lab, 2)
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST)
        keyring = repository._membership.members.keyring
        session = Session(keyring, repository._membership.replicas["near"], names.new_id(), "v", None)
        await session.begin()
        pruning = asyncio.create_task(repository.prune(lease=1000.0, max_unused=1.0))
        while not any(key.endswith("/condemned") for key in lab.stores["near"]):
            await asyncio.sleep(0)
        assert not any(key.endswith("/delete") for key in lab.stores["near"])
        session.relies_on = lambda packs: False
        await session.beat()
        assert (await pruning).exit_code == 0
        await session.end("abandoned")


async def test_nothing_is_removed_where_something_needed_is_missing(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far")
    expected = await _series(lab, 3)
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST)
        largest = max(lab.packs("near"), key=lambda key: len(lab.stores["near"][key]))
        del lab.stores["near"][largest]
        result = await repository.prune()
        assert isinstance(result.failures["near"], DamageError)
        assert result.exit_code == 3
        assert [item.destination for item in result.destinations] == ["far"]
    await lab.assert_restores_alone(dict(list(expected.items())[-1:]), "far")


async def test_a_torn_commit_stops_the_prune_there(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    expected = await _series(lab, 2)
    first = next(iter(expected))
    lab.stores["near"][names.snapshot(first)] = b"torn"
    before = lab.packs("near")
    async with lab.repository() as repository:
        with pytest.raises(SnapferryError, match=first):
            await repository.prune()
    assert lab.packs("near") == before


async def test_stores_that_cannot_keep_writers_apart_ask_for_exclusive(make_lab: MakeLab) -> None:
    class Lax(Wrapper):
        @property
        def capabilities(self) -> Capabilities:
            return dataclasses.replace(self.inner.capabilities, exclusive_create=False)

    lab = await make_lab("near")
    expected = await _series(lab, 3)
    lab.wrappers["near"] = Lax
    async with lab.repository() as repository:
        await repository.forget(policy=LATEST)
        with pytest.raises(SnapferryError, match="--exclusive"):
            await repository.prune()
        assert (await repository.prune(exclusive=True)).exit_code == 0
    await lab.assert_restores_alone(dict(list(expected.items())[-1:]))


async def test_a_forgotten_snapshot_does_not_come_back(make_lab: MakeLab) -> None:
    """Not from a destination that was away, and not from the end of its session."""
    lab = await make_lab("near", "far")
    expected = await _series(lab, 2)
    second = list(expected)[1]
    lab.missing.add("far")
    async with lab.repository() as repository:
        result = await repository.forget([second])
        assert (result.exit_code, set(result.failures)) == (3, {"far"})
    lab.missing.clear()
    async with lab.repository() as repository:
        new = await repository.export(MemorySource(volume(3)), volume="v")
        expected[new.id] = volume(3)
        assert (names.snapshot(second) in lab.stores["near"], names.snapshot(second) in lab.stores["far"]) == (False, True)
        note = objects.decode(
            objects.ForgottenObject,
            repository._membership.members.keyring.open("forgotten", names.forgotten(second), lab.stores["near"][names.forgotten(second)]),
            "",
        )
        assert note.snapshot == second
        for _ in range(3):
            await repository.prune()
            await repository.export(MemorySource(volume(3)), volume="v")
        assert names.snapshot(second) not in lab.stores["near"]
