"""What writers leave half done, and what others must not take for whole."""

from __future__ import annotations

import asyncio
import errno
from functools import partial
from pathlib import Path

import pytest
from typing_extensions import Buffer

from snapferry.destination import Destination
from snapferry.errors import DestinationFull, DestinationUnreachable, SnapferryError
from snapferry.repository import names, sessions
from snapferry.testing.sources import MemorySource
from snapferry.transport.wrapper import Wrapper
from tests.support.gates import Gates, until
from tests.support.lab import BLOCK, FailsNthThroughAll, Lab, MakeLab, changed, volume


def _open_sessions(lab: Lab, place: str) -> set[str]:
    parts = [key.split("/") for key in lab.stores[place] if key.startswith(names.SESSIONS)]
    return {session for _, session, _ in parts} - {session for _, session, part in parts if part == names.END}


async def test_a_note_that_is_not_ours_hides_no_commit_from_a_prune(make_lab: MakeLab) -> None:
    """A writer died between its end and the copy of its commit; somebody who can create objects has put a note there."""
    lab = await (await make_lab("near")).begin_with(volume(1))
    del lab.stores["near"][names.snapshot(lab.id)]
    lab.stores["near"][names.forgotten(lab.id)] = b"torn"
    async with lab.repository("near") as repository:
        await repository.prune(lease=0.0)
        assert [item.snapshot.id for item in await repository.list()] == [lab.id]
        assert await lab.contents(repository, lab.id) == volume(1)


@pytest.mark.parametrize("how", ["torn", "noted by a verify here"])
async def test_what_is_broken_is_copied_before_the_commit_that_needs_it(make_lab: MakeLab, how: str) -> None:
    lab = await make_lab("near", "far")
    one = volume(1, blocks=12)
    two = one + bytes(BLOCK) + volume(5, blocks=4)
    async with lab.repository() as repository:
        await repository.export(MemorySource(one), volume="v", block_size=BLOCK)
    far = lab.stores["far"]
    pack = max(lab.packs("far"), key=lambda key: len(far[key]))
    lab.missing.add("far")
    async with lab.repository() as repository:
        second = await repository.export(MemorySource(two), volume="v")
    lab.missing.clear()
    if how == "torn":
        far[pack] = far[pack][: len(far[pack]) // 2]
    else:
        far[pack] = far[pack][:100] + b"?" + far[pack][101:]
        async with lab.repository() as repository:
            assert (await repository.verify(read_data=100)).damage
            for key in [key for key in far if key.startswith(names.DAMAGED)]:
                del far[key]  # Only this machine knows.
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(9, blocks=12)), volume="v")  # Needs none of it.
        where = {item.snapshot.id: item.destinations for item in await repository.list()}
    assert "far" in where[second.id]
    async with lab.repository("far") as alone:
        assert await lab.contents(alone, second.id) == two


async def test_catching_up_that_fails_ends_its_session(make_lab: MakeLab) -> None:
    """Else every prune would wait for it."""
    lab = await make_lab("near", "far")
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(1)), volume="v", block_size=BLOCK)
    lab.missing.add("far")
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(2)), volume="v")
    lab.missing.clear()
    far = lab.packs("far")
    for key in lab.packs("near"):
        if key not in far and len(lab.stores["near"][key]) > 20000:
            del lab.stores["near"][key]
    async with lab.repository() as repository:
        assert (await repository.export(MemorySource(volume(3)), volume="v")).behind == ()
    assert sum(key.endswith(names.END) for key in lab.stores["far"]) == 3
    assert not _open_sessions(lab, "far")


async def test_an_export_that_fails_before_it_reads_ends_its_sessions(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = await (await make_lab("near", "far")).begin_with(volume(1))

    async def fails(*_: object, **__: object) -> None:
        raise SnapferryError("the index cannot be loaded")

    monkeypatch.setattr("snapferry.repository.index_cache.IndexCache.load", fails)
    async with lab.repository() as repository:
        with pytest.raises(SnapferryError, match="the index cannot be loaded"):
            await repository.export(MemorySource(volume(2)), volume="v")
    for place in lab.names:
        assert sum(key.endswith(names.END) for key in lab.stores[place]) == 2
        assert not _open_sessions(lab, place)


async def test_a_place_that_cannot_be_listed_has_its_session_ended(make_lab: MakeLab) -> None:
    lab = await (await make_lab("near", "far")).begin_with(volume(1))

    async with lab.repository() as repository:
        lab.wrappers["far"] = listing = FailsNthThroughAll("list", 1, lambda: DestinationUnreachable("gone", "far"), times=99)
        made = await repository.export(MemorySource(volume(2)), volume="v")
    assert listing.fired
    assert made.behind == ("far",)
    assert not _open_sessions(lab, "far")


class CannotRead(Wrapper):
    """Reads of one key fail; ``reads`` counts those of notes."""

    def __init__(self, inner: Destination, key: str = "") -> None:
        super().__init__(inner)
        self._key = key
        self.notes = 0

    async def read(self, key: str, limit: int) -> bytes:
        self.notes += key.startswith(names.FORGOTTEN)
        if key == self._key:
            raise DestinationUnreachable("no answer", self.name)
        return await super().read(key, limit)


class CannotCreate(Wrapper):
    """Creates below a prefix fail."""

    def __init__(self, inner: Destination, prefix: str) -> None:
        super().__init__(inner)
        self._prefix = prefix

    async def create(self, key: str, data: Buffer) -> bool:
        if key.startswith(self._prefix):
            raise DestinationFull("no space", self.name)
        return await super().create(key, data)


async def test_a_place_that_fails_after_its_first_beat_has_its_session_ended(make_lab: MakeLab) -> None:
    lab = await (await make_lab("near", "far")).begin_with(volume(1))

    class FailsThen(Wrapper):
        """Commits cannot be read any more once a session has begun."""

        begun = False

        async def read(self, key: str, limit: int) -> bytes:
            if self.begun and key.startswith(names.SNAPSHOTS):
                raise DestinationUnreachable("no answer", self.name)
            return await super().read(key, limit)

        async def create(self, key: str, data: Buffer) -> bool:
            created = await super().create(key, data)
            self.begun |= key.startswith(names.SESSIONS)
            return created

    async with lab.repository() as repository:
        lab.wrappers["far"] = FailsThen
        assert (await repository.export(MemorySource(volume(2)), volume="v")).behind == ("far",)
    assert not _open_sessions(lab, "far")


async def test_a_segment_that_was_left_at_one_place_only_is_brought_to_the_others(make_lab: MakeLab) -> None:
    lab = await (await make_lab("near", "far")).begin_with(volume(1))
    for key in [key for key in lab.stores["near"] if key.startswith(names.INDEX)]:
        del lab.stores["near"][key]
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(1)), volume="v")
    async with lab.repository("near") as alone:
        assert (await alone.verify()).damage == ()


async def test_a_place_that_fills_up_has_its_session_ended(make_lab: MakeLab) -> None:
    """A prune is what is needed there then, and it would wait."""
    lab = await (await make_lab("near", "far")).begin_with(volume(1))
    lab.wrappers["far"] = partial(CannotCreate, prefix=names.PACKS)
    async with lab.repository() as repository:
        assert (await repository.export(MemorySource(volume(2)), volume="v")).behind == ("far",)
    assert not _open_sessions(lab, "far")


async def test_copies_that_fail_end_the_session_of_the_export(make_lab: MakeLab) -> None:
    lab = await (await make_lab("near", "far")).begin_with(volume(1))
    lab.missing.add("far")
    two = volume(2, zeros=())
    async with lab.repository() as repository:
        await repository.export(MemorySource(two), volume="v")
    lab.missing.clear()
    (needed,) = {key for key in lab.packs("near") if key not in lab.packs("far") and len(lab.stores["near"][key]) > 20000}
    lab.wrappers["far"] = partial(CannotCreate, prefix=needed)
    async with lab.repository() as repository:
        assert (await repository.export(MemorySource(changed(two, 5, [1])), volume="v")).behind == ("far",)
    assert not _open_sessions(lab, "far")


@pytest.mark.parametrize("what", ["the list of packs", "a copy for the parent"])
async def test_it_beats_whatever_takes_long(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Else a prune would take it for dead, and do so again at the next try."""
    lab = await (await make_lab("near", "far")).begin_with(volume(1))
    if what == "the list of packs":
        gates = Gates("list", names.PACKS, 1)
    else:
        lab.missing.add("far")
        async with lab.repository() as repository:
            await repository.export(MemorySource(volume(2)), volume="v")
        lab.missing.clear()
        behind = max(set(lab.packs("near")) - set(lab.packs("far")), key=lambda key: len(lab.stores["near"][key]))
        gates = Gates("create", behind, 1)
    monkeypatch.setattr(sessions, "BEAT_SECONDS", 0.001)
    async with lab.repository() as repository, asyncio.TaskGroup() as group:
        lab.wrappers["far"] = gates
        exporting = group.create_task(repository.export(MemorySource(volume(3)), volume="v"))
        await until(lambda: gates.reached)
        (session,) = _open_sessions(lab, "far")
        await until(lambda: names.beat(session, 5) in lab.stores["far"])
        gates.release()
    assert exporting.result().behind == ()


async def test_a_forget_reads_no_notes_but_those_it_must(make_lab: MakeLab) -> None:
    lab = await (await make_lab("near")).begin_with(volume(1))
    ids = [lab.id]
    async with lab.repository() as repository:
        for number in range(8):
            ids.append((await repository.export(MemorySource(volume(number % 3, blocks=4)), volume="v")).id)
        await repository.forget(ids[:6])
        for _ in range(4):
            await repository.prune(lease=0.0)
    reading: list[CannotRead] = []

    def count(inner: Destination) -> Destination:
        reading.append(CannotRead(inner))
        return reading[-1]

    lab.wrappers["near"] = count
    async with lab.repository() as repository:
        await repository.forget([ids[6]])
    assert sum(place.notes for place in reading) <= 1


@pytest.mark.parametrize("why", ["cannot be read", "is damaged", "has no copy, and there is no space"])
async def test_what_a_name_means_is_not_decided_while_a_commit_is_unknown(make_lab: MakeLab, why: str) -> None:
    lab = await (await make_lab("near", "far")).begin_with(volume(1))
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(2)), volume="v")
        third = names.snapshot((await repository.export(MemorySource(volume(3)), volume="v", to=["near"])).id)
    if why == "cannot be read":
        lab.wrappers["near"] = partial(CannotRead, key=third)
    elif why == "is damaged":
        lab.stores["near"][third] = lab.stores["near"][third][:-1]
    else:
        del lab.stores["near"][third]
        lab.wrappers["near"] = partial(CannotCreate, prefix="")
    async with lab.repository("near", "far") as repository:
        for destinations in (None, ["far"]):
            with pytest.raises(SnapferryError, match="v~1 may mean another snapshot"):
                await repository.forget(["v~1"], destinations=destinations)
    async with lab.repository("far") as repository:
        assert len(await repository.list()) == 2


async def test_a_cache_on_a_read_only_disk_fails_no_export(make_lab: MakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = await (await make_lab("near")).begin_with(volume(1))
    for key in [key for key in lab.stores["near"] if key.startswith(names.INDEX)]:
        del lab.stores["near"][key]
    unlink = Path.unlink

    def read_only(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("made-"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", read_only)
    async with lab.repository("near") as repository:
        assert (await repository.export(MemorySource(volume(2)), volume="v")).behind == ()


async def test_a_verify_names_a_commit_that_a_strange_note_hides(make_lab: MakeLab) -> None:
    lab = await (await make_lab("near", "far")).begin_with(volume(1))
    del lab.stores["near"][names.snapshot(lab.id)]
    lab.stores["near"][names.forgotten(lab.id)] = b"torn"
    async with lab.repository() as repository:
        damage = {item.object for item in (await repository.verify()).damage}
    assert {names.snapshot(lab.id), names.forgotten(lab.id)} <= damage


@pytest.mark.parametrize("reference", ["v~1", "v@2100-01-01"])
async def test_what_a_name_means_is_not_decided_while_a_place_is_away(make_lab: MakeLab, reference: str) -> None:
    """The latest is only there: what would be forgotten is another snapshot than the one meant. By its id it is the same everywhere."""
    lab = await (await make_lab("near", "far")).begin_with(volume(1))
    async with lab.repository() as repository:
        await repository.export(MemorySource(volume(2)), volume="v")
        await repository.export(MemorySource(volume(3)), volume="v", to=["near"])
    lab.missing.add("near")
    async with lab.repository() as repository:
        with pytest.raises(SnapferryError, match=f"{reference} may mean another snapshot .* name it by its id: near: "):
            await repository.forget([reference])
        assert (await repository.forget([lab.id[:12]])).forgotten[0].destinations == ("far",)
