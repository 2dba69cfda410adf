"""Prunes, exports and forgets that meet at their worst moments. Each was found to lose something once, or to block a prune for ever."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest

from snapferry import _core
from snapferry.destination import Destination
from snapferry.engine import Repository
from snapferry.errors import DestinationError, Fenced, SnapferryError
from snapferry.lifecycle.retention import RetentionPolicy
from snapferry.pipeline.backup import Export
from snapferry.repository import names, objects
from snapferry.repository.sessions import Session, fence
from snapferry.testing.faults import FailsNth, Hangs
from snapferry.testing.sources import MemorySource
from tests.support.gates import Gates, until
from tests.support.lab import BLOCK, EndsWhenLetGo, Lab, MakeLab, changed, volume

LATEST = RetentionPolicy(keep_last=1)


async def test_nothing_is_kept_in_a_pack_that_is_known_to_be_bad(make_lab: MakeLab) -> None:
    """Of the two packs of a block the good one stays, whatever their ids are."""
    for seed in range(4):
        lab = await make_lab("near")
        data = volume(seed, blocks=20)
        async with lab.repository() as repository:
            await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
            pack = max(lab.packs("near"), key=lambda key: len(lab.stores["near"][key]))
            torn = bytearray(lab.stores["near"][pack])
            torn[len(torn) // 2] ^= 255
            lab.stores["near"][pack] = bytes(torn)
            assert (await repository.verify(read_data=100)).damage
            second = await repository.export(MemorySource(data), volume="v")
            assert second.blocks_new > 0
            assert (await repository.prune()).exit_code == 0
            assert await lab.contents(repository, second.id) == data
        for path in lab.directory.iterdir():
            if path.is_file():
                path.unlink()


async def test_a_note_that_fails_its_check_lets_nothing_go(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    data = volume(1)
    async with lab.repository() as repository:
        made = await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
        lab.stores["near"][names.forgotten(made.id)] = b"torn"
        for _ in range(2):
            await repository.prune(lease=0.0)
            assert [item.snapshot.id for item in await repository.list()] == [made.id]
            assert await lab.contents(repository, made.id) == data


async def test_never_two_open_collections(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    shared, one, other = (random.Random(seed).randbytes(blocks * BLOCK) for seed, blocks in ((1, 4), (2, 12), (3, 4)))
    async with lab.repository() as repository:
        # The same blocks stored twice, by two exports side by side.
        async with lab.repository("near") as third:
            source = EndsWhenLetGo(shared + one)
            exporting = asyncio.create_task(third.export(source, volume="w", block_size=BLOCK))
            await source.reading.wait()
            first = await repository.export(MemorySource(shared + other), volume="v", block_size=BLOCK)
            source.released.set()
            beside = await exporting
        kept = await repository.export(MemorySource(shared), volume="v")
        await repository.forget([first.id])
        # One collector has looked for an open collection (there is none), and sleeps before it lists.
        looks = Gates("list", "collect/", 2)
        lab.wrappers["near"] = looks
        async with lab.repository("near") as second:
            late = asyncio.create_task(second.prune(max_unused=1.0))
            await until(lambda: looks.reached)
            # Another one goes on to its deletes, and sleeps in the first.
            deletes = Gates("delete", "packs/", 1)
            lab.wrappers["near"] = deletes
            early = asyncio.create_task(repository.prune(max_unused=1.0))
            await until(lambda: deletes.reached)
            lab.wrappers.clear()
            await repository.forget([beside.id])
            looks.release()
            await asyncio.wait({late}, timeout=1.0)
            deletes.release()
            await asyncio.gather(early, late)
        assert await lab.contents(repository, kept.id) == shared


async def test_a_killed_export_does_not_block_the_prune_of_a_place_that_was_behind(
    make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = await make_lab("near", "far")
    lab.missing.add("far")
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
    lab.missing.clear()

    async def nothing(self: Export) -> None:
        """Killed: nobody says that nothing comes any more."""

    class Dies(MemorySource):
        def check_unchanged(self) -> None:
            raise SnapferryError("killed")

    async with lab.repository() as repository:
        with monkeypatch.context() as patch:
            patch.setattr(Export, "_abandon", nothing)
            with pytest.raises(SnapferryError, match="killed"):
                await repository.export(Dies(changed(volume(1), 2, [1])), volume="v")
        assert (await repository.prune(lease=0.0)).failures == {}


async def test_an_export_that_catches_up_is_waited_for(make_lab: MakeLab) -> None:
    """What it will take for present at a place that is behind is condemned meanwhile, and rescued by its commit."""
    lab = await make_lab("near", "far")
    one, other = volume(1, tail=0, zeros=()), volume(50, tail=0, zeros=())
    async with lab.repository() as repository:
        # far has all packs of the latest, but not its commit: it failed there at the very end.
        lab.wrappers["far"] = FailsOnEnd
        first = await repository.export(MemorySource(one), volume="v", block_size=BLOCK)
        assert first.acknowledged == ("near",)
        lab.wrappers.clear()
        await fence(repository._membership.members.keyring, repository._membership.replicas["far"], first.id)
        beside = await repository.export(MemorySource(other), volume="w", block_size=BLOCK, to=["near"])
        source = EndsWhenLetGo(one + other)
        exporting = asyncio.create_task(repository.export(source, volume="v"))
        await source.reading.wait()
        # Another export's catch-up put these there, and was killed.
        for key in set(lab.packs("near")) - set(lab.packs("far")):
            lab.stores["far"][key] = lab.stores["near"][key]
        async with lab.repository("far") as second:
            pruning = asyncio.create_task(second.prune(lease=1000.0, max_unused=1.0))
            await until(lambda: pruning.done() or any(key.endswith("/condemned") for key in lab.stores["far"]))
            source.released.set()
            made = await exporting
            await pruning
    await lab.assert_restores_alone({first.id: one, beside.id: other, made.id: one + other})


class FailsOnEnd(FailsNth):
    """Every create of a session's end fails."""

    def __init__(self, inner: Destination) -> None:
        super().__init__(inner, "create", 0, lambda: DestinationError("no"))

    async def before(self, operation: str, key: str) -> None:
        if operation == "create" and key.endswith("/end"):
            raise DestinationError("no", self.name)


async def _garbage(lab: Lab, repository: Repository) -> tuple[_core.Keyring, str, bytes]:
    """Packs that nothing needs, and a commit of a snapshot that would need them, not made yet."""
    gone = await repository.export(MemorySource(volume(9)), volume="w", block_size=BLOCK)
    await repository.export(MemorySource(volume(8)), volume="keep", block_size=BLOCK)
    await repository.forget([gone.id])
    keyring = repository._membership.members.keyring
    snapshot = names.new_id()
    commit = keyring.seal("commit", names.snapshot(snapshot), objects.commit_payload(dataclasses.replace(gone.snapshot, id=snapshot)))
    return keyring, snapshot, commit


async def test_who_brings_a_snapshot_accepts_nothing_for_its_first_writer(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    async with lab.repository() as repository:
        keyring, snapshot, commit = await _garbage(lab, repository)
        place = repository._membership.replicas["near"]
        hangs = Hangs(place, "create", lambda key: key == names.session_end(snapshot))
        writer = Session(keyring, hangs, snapshot, "w", None)
        await writer.begin()  # The packs are there: it builds on them.
        pruning = asyncio.create_task(repository.prune(lease=1000.0, max_unused=1.0))
        await until(lambda: any(key.endswith("/condemned") for key in lab.stores["near"]))
        ending = asyncio.create_task(writer.end("committed", commit))
        await hangs.hanging.wait()  # After its last beat.
        await Session(keyring, place, names.new_id(), "w", None, brings=snapshot).begin()
        await asyncio.wait({pruning}, timeout=1.0)
        assert not pruning.done()
        hangs.released.set()
        await ending
        await asyncio.sleep(0)
        pruning.cancel()
        await asyncio.wait({pruning})
        assert await lab.contents(repository, snapshot) == volume(9)
        await repository.prune(lease=0.0)
        assert await lab.contents(repository, snapshot) == volume(9)


async def test_a_writer_given_up_long_ago_ends_nothing(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    async with lab.repository() as repository:
        keyring, snapshot, commit = await _garbage(lab, repository)
        place = repository._membership.replicas["near"]
        writer = Session(keyring, place, snapshot, "w", None)
        await writer.begin()
        for _ in range(3):
            await repository.prune(lease=0.0)
        assert not [key for key in lab.stores["near"] if key.startswith(f"sessions/{snapshot}")]
        await Session(keyring, place, names.new_id(), "w", None, brings=snapshot).begin()
        with pytest.raises(Fenced):
            await writer.end("committed", commit)
        assert names.snapshot(snapshot) not in lab.stores["near"]


async def test_forgotten_stays_forgotten_where_its_copy_was_not_made_yet(make_lab: MakeLab) -> None:
    lab = await make_lab("near", "far")
    async with lab.repository() as repository:
        made = await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
        await repository.export(MemorySource(volume(2)), volume="v", block_size=BLOCK)
        del lab.stores["far"][names.snapshot(made.id)]  # Killed between end and copy there.
        assert (await repository.forget([made.id])).exit_code == 0
        for _ in range(3):
            assert made.id not in {item.snapshot.id for item in await repository.list()}
            await repository.prune()


async def test_a_torn_condemned_does_not_block_for_ever(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    async with lab.repository() as repository:
        made = await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
        lab.stores["near"][names.collection(1, names.CONDEMNED)] = b"torn"
        with pytest.raises(SnapferryError):
            await repository.export(MemorySource(volume(1)), volume="v")
        assert (await repository.prune(lease=0.0)).exit_code == 0
        again = await repository.export(MemorySource(volume(1)), volume="v")
        assert (await repository.prune(lease=0.0)).exit_code == 0
    await lab.assert_restores_alone({made.id: volume(1), again.id: volume(1)})


async def test_verify_beside_a_prune_finds_no_damage(make_lab: MakeLab) -> None:
    lab = await make_lab("near")
    data = volume(1, blocks=60)
    async with lab.repository() as repository:
        for number in range(4):
            await repository.export(MemorySource(data), volume="v", block_size=BLOCK)
            data = changed(data, number, range(number, 60, 5))
        await repository.forget(policy=LATEST)
    hangs: list[Hangs] = []

    def wrap(inner: Destination) -> Destination:
        hangs.append(Hangs(inner, "read_into", lambda key: key.startswith("packs/")))
        return hangs[-1]

    lab.wrappers["near"] = wrap
    async with lab.repository() as repository:
        lab.wrappers.clear()
        checking = asyncio.create_task(repository.verify(read_data=100))
        await until(lambda: any(item.hanging.is_set() for item in hangs))
        async with lab.repository("near") as second:
            await second.prune()
        for item in hangs:
            item.released.set()
        assert (await checking).damage == ()
