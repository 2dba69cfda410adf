"""Keys: added, removed, rotated; and hosts that can write and not read, on a store that lets them add and nothing else."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

import snapferry
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import AccessDenied, ConfigurationError, Fenced, SnapferryError
from snapferry.repository.keyfile import LooseKeyFile, host_public_key, read_key_file
from snapferry.testing.faults import RefusesDeletes
from snapferry.testing.sources import MemorySource
from snapferry.transport.wrapper import Wrapper
from tests.support.keyholders import Keyholders
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

DATA = volume(1, blocks=12)
LATER = changed(DATA, 2, [2, 7])
LAST = changed(LATER, 3, [5])


def slots(lab: Lab, place: str) -> dict[str, bytes]:
    return {key: data for key, data in lab.stores[place].items() if key.startswith("keys/")}


def data_epochs(lab: Lab, place: str = "near") -> dict[str, tuple[int, int]]:
    """By pack: (1 if its key is sealed in it, epoch), of data packs."""
    packs = {key: lab.stores[place][key] for key in lab.packs(place)}
    return {key: (pack[13], int.from_bytes(pack[80:84], "little")) for key, pack in packs.items() if pack[12] == 1}


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    return await make_lab()


@pytest.fixture
def holders(lab: Lab) -> Keyholders:
    return Keyholders(lab)


async def _add(lab: Lab, **how: Any) -> str:
    async with lab.repository() as repository:
        change = await repository.keys.add(**how)
    assert (change.exit_code, change.changed) == (0, ("near", "far"))
    assert change.slot is not None
    return change.slot


async def test_each_kind_of_key_opens_and_restores(lab: Lab, holders: Keyholders) -> None:
    new = lab.directory / "new.key"
    added = [
        await _add(lab, key_file=new, label="made"),
        await _add(lab, key_file=holders.file("there"), label="there"),
        await _add(lab, passphrase_file=holders.passphrase(), label="words"),
        await _add(lab, public_key=host_public_key(read_key_file(holders.file("host"))), label="host"),
    ]
    assert new.stat().st_mode & 0o777 == 0o600
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(DATA), volume="v", block_size=BLOCK)
        listed = await repository.keys.list()
        assert [key.id for key in listed if key.label] == sorted(added, key=[key.id for key in listed].index)
        assert [key.in_use for key in listed].count(True) == 1
        assert {key.kind for key in listed} == {"key file", "passphrase", "public key"}
        assert all((key.role, key.epoch, key.up_to_date, key.destinations) == ("full", 0, True, ("near", "far")) for key in listed)
    for name in ("new", "there", None, "host"):
        await holders.assert_reads(name, {result.id: DATA})
    assert slots(lab, "near") == slots(lab, "far")


async def test_a_host_that_writes_and_never_reads(lab: Lab, holders: Keyholders) -> None:
    """On a store that refuses deletes; a chain in which full keys and the host take turns."""
    await _add(lab, key_file=holders.file("host"), write_only=True)
    for place in lab.names:
        lab.wrappers[place] = RefusesDeletes
    versions = {}
    for number, (name, data) in enumerate([("snapferry", DATA), ("host", LATER), ("snapferry", LAST), ("host", DATA), ("host", DATA)]):
        before = {place: dict(lab.stores[place]) for place in lab.names}
        result = await holders.export(name, data)
        assert result.acknowledged == ("near", "far")
        # Only what changed is stored, whoever stored the rest; and nothing that was there is touched.
        assert result.blocks_new == [None, 2, 1, 0, 0][number] or number == 0
        for place in lab.names:
            assert before[place].items() <= lab.stores[place].items()
        versions[result.id] = data
    await holders.assert_reads("snapferry", versions)
    assert {sealed for sealed, _ in data_epochs(lab).values()} == {0, 1}

    async with holders.open("host") as repository:
        assert len(await repository.list()) == 5
        assert (await repository.show("v~3")).replicas[0].packs_missing == 0
        assert [extent async for extent in repository.diff("v~4", "v~3")]
        for read in (repository.restore("v", lab.directory / "out"), _cat(repository)):
            with pytest.raises(AccessDenied, match="can write and not read") as caught:
                await read
            assert caught.value.exit_code == 12
        assert not (lab.directory / "out").exists()
        for change in (repository.keys.rotate(), repository.keys.remove("x"), repository.keys.add(key_file=lab.directory / "no.key")):
            with pytest.raises(AccessDenied, match="full key"):
                await change
        assert not (lab.directory / "no.key").exists()
        assert [key.role for key in await repository.keys.list() if key.in_use] == ["write-only"]


async def _cat(repository: snapferry.Repository) -> None:
    async with repository.open_snapshot("v") as reader:
        await reader.pread(1, 0)


async def test_a_write_only_host_verifies_what_names_and_hashes_tell(
    lab: Lab, holders: Keyholders, caplog: pytest.LogCaptureFixture
) -> None:
    await _add(lab, key_file=holders.file("host"), write_only=True)
    await holders.export("snapferry", DATA)
    await holders.export("host", LATER)
    async with holders.open("host") as repository:
        result = await repository.verify(read_data=100)
    assert (result.exit_code, result.damage) == (0, ())
    assert "not opened" in caplog.text
    for pack in data_epochs(lab):
        good = lab.stores["near"][pack]
        lab.stores["near"][pack] = good[:300] + bytes([good[300] ^ 1]) + good[301:]
        async with holders.open("host") as repository:
            damage = (await repository.verify(read_data=100)).damage
        assert {(item.destination, item.object) for item in damage} == {("near", pack)}
        lab.stores["near"][pack] = good


async def test_a_write_only_host_goes_on_where_it_was_interrupted_and_brings_others_up_to_date(lab: Lab, holders: Keyholders) -> None:
    await _add(lab, key_file=holders.file("host"), write_only=True)
    lab.missing.add("far")
    first = await holders.export("snapferry", DATA)
    assert first.acknowledged == ("near",)
    # Packs whose segment was lost: their tails are read with the metadata keys.
    for key in [key for key in lab.stores["near"] if key.startswith("index/")]:
        del lab.stores["near"][key]
    lab.missing.clear()
    second = await holders.export("host", LATER)
    assert (second.acknowledged, second.blocks_new) == (("near", "far"), 2)
    await holders.assert_reads("snapferry", {first.id: DATA, second.id: LATER})
    assert lab.packs("near") == lab.packs("far")


async def test_after_a_rotation_old_snapshots_are_read_and_new_packs_are_of_the_new_epoch(lab: Lab, holders: Keyholders) -> None:
    await _add(lab, key_file=holders.file("host"), write_only=True)
    await _add(lab, passphrase_file=holders.passphrase())
    leaver = await _add(lab, key_file=holders.file("leaver"))
    first = await holders.export("host", DATA)
    before = slots(lab, "near")
    async with lab.repository() as repository:
        removed = await repository.keys.remove(leaver[:8])
        assert (removed.slot, removed.slots, removed.exit_code) == (leaver, 3, 0)
        change = await repository.keys.rotate()
        assert (change.epoch, change.slots, change.changed, change.failures) == (1, 3, ("near", "far"), {})
        second = await repository.export(MemorySource(LATER), volume="v")
    third = await holders.export("host", LAST)
    assert set(data_epochs(lab).values()) == {(1, 0), (0, 1), (1, 1)}
    for name in ("snapferry", None):
        await holders.assert_reads(name, {first.id: DATA, second.id: LATER, third.id: LAST})
    for name in lab.names:
        with pytest.raises(AccessDenied, match="was removed") as caught:
            async with holders.open("leaver", name):
                pass
        assert caught.value.exit_code == 12
        # Nothing of the old copies is left; of the one that was removed, the note.
        assert not slots(lab, name).keys() & before.keys()
        assert len(slots(lab, name)) == 4


async def test_whoever_has_the_repository_open_learns_of_a_rotation(lab: Lab, holders: Keyholders) -> None:
    await _add(lab, key_file=holders.file("host"), write_only=True)
    async with lab.repository() as early, holders.open("host") as host, lab.repository() as reader:
        await early.export(MemorySource(DATA), volume="v", block_size=BLOCK)
        async with lab.repository() as other:
            await other.keys.rotate()
        second = await early.export(MemorySource(LATER), volume="v")
        third = await host.export(MemorySource(LAST), volume="v")
        assert {(0, 1), (1, 1)} <= set(data_epochs(lab).values())
        # Opened before there was such an epoch.
        assert await lab.contents(reader, second.id) == LATER
        assert (await reader.verify(read_data=100)).damage == ()
        assert await lab.contents(reader, third.id) == LAST


async def test_a_header_that_names_an_unknown_epoch_is_no_reason_to_give_up(lab: Lab) -> None:
    async with lab.repository() as repository:
        result = await repository.export(MemorySource(DATA), volume="v", block_size=BLOCK)
    for pack in data_epochs(lab):
        good = lab.stores["near"][pack]
        lab.stores["near"][pack] = good[:80] + b"\x07" + good[81:]
    async with lab.repository() as repository:
        assert await lab.contents(repository, result.id) == DATA


async def test_a_destination_that_was_away_gets_its_slots_before_anything_else(lab: Lab, holders: Keyholders) -> None:
    await _add(lab, key_file=holders.file("host"), write_only=True)
    leaver = await _add(lab, key_file=holders.file("leaver"))
    first = await holders.export("snapferry", DATA)
    lab.missing.add("far")
    async with lab.repository() as repository:
        added = await repository.keys.add(key_file=lab.directory / "late.key")
        assert (added.exit_code, added.changed, list(added.failures)) == (3, ("near",), ["far"])
        assert (await repository.keys.remove(leaver)).exit_code == 3
        assert (await repository.keys.rotate()).exit_code == 3
    lab.missing.clear()
    away = slots(lab, "far")
    order: list[str] = []

    class Notes(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            order.append(key.split("/")[0])
            return await self.inner.create(key, data)

    lab.wrappers["far"] = Notes
    second = await holders.export("host", LATER)
    assert second.acknowledged == ("near", "far")
    assert order[:4] == ["keys"] * 4
    assert "keys" not in order[4:]
    # An export adds, and deletes nothing.
    assert away.items() <= slots(lab, "far").items()
    for name in ("snapferry", "late"):
        await holders.assert_reads(name, {first.id: DATA, second.id: LATER})
    with pytest.raises(AccessDenied, match="was removed"):
        async with holders.open("leaver", "far"):
            pass
    async with lab.repository() as repository:
        assert (await repository.keys.rotate()).exit_code == 0
    assert slots(lab, "far") == slots(lab, "near")


async def test_a_destination_that_refuses_its_slots_gets_no_snapshot(lab: Lab, holders: Keyholders) -> None:
    lab.missing.add("far")
    async with lab.repository() as repository:
        await repository.keys.rotate()
    lab.missing.clear()

    class Refuses(Wrapper):
        async def create(self, key: str, data: Any) -> bool:
            if key.startswith("keys/"):
                raise snapferry.DestinationFull("full", self.name)
            return await self.inner.create(key, data)

    lab.wrappers["far"] = Refuses
    result = await holders.export("snapferry", DATA)
    assert (result.acknowledged, result.exit_code) == (("near",), 3)
    assert not lab.packs("far")


async def test_a_key_added_while_another_rotated_is_brought_up_to_date_by_the_next_export(lab: Lab, holders: Keyholders) -> None:
    """Each did it at one place, the other one being away."""
    lab.missing.add("far")
    async with lab.repository() as repository:
        await repository.keys.rotate()
        near = await repository.export(MemorySource(DATA), volume="v", block_size=BLOCK)
    lab.missing.symmetric_difference_update(lab.names)
    async with lab.repository() as repository:
        await repository.keys.add(key_file=holders.file("late"))
    lab.missing.clear()
    # While one full key lacks an epoch nobody writes under it; who can seals that slot anew first.
    both = await holders.export("snapferry", LATER)
    async with lab.repository() as repository:
        assert all(key.up_to_date for key in await repository.keys.list())
    await holders.assert_reads("late", {near.id: DATA, both.id: LATER})


async def test_two_rotations_at_once_lose_nothing(lab: Lab, holders: Keyholders) -> None:
    first = await holders.export("snapferry", DATA)
    async with lab.repository() as one, lab.repository() as other:
        await asyncio.gather(one.keys.rotate(), other.keys.rotate())
        second = await one.export(MemorySource(LATER), volume="v")
        third = await other.export(MemorySource(LAST), volume="v")
    await holders.assert_reads("snapferry", {first.id: DATA, second.id: LATER, third.id: LAST})
    async with lab.repository() as repository:
        await repository.keys.rotate()
    assert len(slots(lab, "near")) == 1
    await holders.assert_reads("snapferry", {first.id: DATA, second.id: LATER, third.id: LAST})


async def test_the_last_full_key_stays(lab: Lab, holders: Keyholders) -> None:
    host = await _add(lab, key_file=holders.file("host"), write_only=True)
    async with lab.repository() as repository:
        (own,) = [key for key in await repository.keys.list() if key.in_use]
        for dry_run in (False, True):
            with pytest.raises(SnapferryError, match="the last full key") as caught:
                await repository.keys.remove(own.id, dry_run=dry_run)
            assert caught.value.exit_code == 1
        await repository.keys.remove(host)
        await repository.keys.add(key_file=holders.file("other"))
        # The key in use may go, if another one is left.
        await repository.keys.remove(own.id)
        with pytest.raises(AccessDenied, match="the key in use was removed"):
            await repository.export(MemorySource(DATA), volume="v", block_size=BLOCK)
    async with holders.open("other") as repository:
        assert len(await repository.keys.list()) == 1


async def test_two_full_keys_that_are_removed_at_the_same_moment(lab: Lab, holders: Keyholders) -> None:
    other = await _add(lab, key_file=holders.file("other"))
    async with lab.repository() as one, holders.open("other") as two:
        (own,) = [key.id for key in await one.keys.list() if key.in_use]
        arrived = asyncio.Barrier(2)

        class Meets(Wrapper):
            """Both have decided, and looked, before either writes."""

            async def create(self, key: str, data: Any) -> bool:
                await arrived.wait()
                return await self.inner.create(key, data)

        lab.wrappers["near"] = Meets
        done = await asyncio.gather(one.keys.remove(other), two.keys.remove(own), return_exceptions=True)
        lab.wrappers.clear()
    assert {type(result) for result in done} <= {Fenced, snapferry.KeyChange}
    assert any(isinstance(result, Fenced) for result in done)
    opened = 0
    for name in ("snapferry", "other"):
        try:
            async with holders.open(name) as repository:
                opened += any(key.role == "full" for key in await repository.keys.list())
        except AccessDenied:
            continue
    assert opened


@pytest.mark.parametrize("action", ["add", "remove", "rotate"])
async def test_a_dry_run_writes_nothing(lab: Lab, holders: Keyholders, action: str) -> None:
    other = await _add(lab, key_file=holders.file("other"), label="other")
    before = {place: dict(lab.stores[place]) for place in lab.names}
    async with lab.repository() as repository:
        if action == "add":
            change = await repository.keys.add(key_file=lab.directory / "no.key", dry_run=True)
        elif action == "remove":
            change = await repository.keys.remove("other", dry_run=True)
            assert change.slot == other
        else:
            change = await repository.keys.rotate(dry_run=True)
    assert (change.dry_run, change.exit_code, change.slots) == (True, 0, 2)
    assert before == lab.stores
    assert not (lab.directory / "no.key").exists()


async def test_bad_arguments(lab: Lab, holders: Keyholders) -> None:
    lab_key = lab.directory / "snapferry.key"
    held = host_public_key(read_key_file(holders.file("host")))
    await _add(lab, public_key=held, label="same")
    await _add(lab, passphrase_file=holders.passphrase(), label="same")
    (lab.directory / "not.key").write_text("nonsense")
    (lab.directory / "not.key").chmod(0o600)
    zeros = "snapferry-public-v1:" + "A" * 43 + "="
    cases: list[tuple[dict[str, Any], type[SnapferryError], str]] = [
        ({}, ConfigurationError, "one of: a key file"),
        ({"key_file": "a", "public_key": "b"}, ConfigurationError, "one of: a key file"),
        ({"key_file": lab_key}, SnapferryError, "opens the repository already"),
        ({"key_file": lab_key, "write_only": True}, SnapferryError, "opens the repository already"),
        ({"public_key": held}, SnapferryError, "opens the repository already"),
        ({"passphrase_file": holders.passphrase()}, SnapferryError, "opens the repository already"),
        ({"key_file": lab.directory / "not.key"}, AccessDenied, "not a snapferry key file"),
        ({"passphrase_file": lab.directory / "none"}, AccessDenied, "cannot read passphrase file"),
        ({"public_key": "nonsense"}, AccessDenied, "cannot read public key file"),
        ({"public_key": zeros}, ConfigurationError, "the public key cannot be used"),
        ({"key_file": lab.directory / "x.key", "label": "x" * 129}, ConfigurationError, "at most 128 bytes"),
        ({"key_file": lab.directory / "x.key", "label": "ü" * 65}, ConfigurationError, "at most 128 bytes"),
        ({"key_file": lab.directory / "x.key", "label": "bell\x07"}, ConfigurationError, "control characters"),
    ]
    before = {place: dict(lab.stores[place]) for place in lab.names}
    async with lab.repository() as repository:
        for how, kind, reason in cases:
            with pytest.raises(kind, match=reason):
                await repository.keys.add(**how)
        for slot, reason in [
            ("same", "is ambiguous: it is the name of 2"),
            ("nothing", "no key slot is called"),
            ("", "no key slot is called"),
        ]:
            with pytest.raises(SnapferryError, match=reason) as caught:
                await repository.keys.remove(slot)
            assert caught.value.exit_code == 1
    assert before == lab.stores
    assert not (lab.directory / "x.key").exists()


async def test_a_wrong_passphrase(lab: Lab, holders: Keyholders) -> None:
    await _add(lab, passphrase_file=holders.passphrase())
    config = holders.config(None)
    holders.passphrase("two  words")
    with pytest.raises(AccessDenied, match="the passphrase is wrong") as caught:
        async with snapferry.open_repository(config):
            pass
    assert caught.value.exit_code == 12
    os.chmod(holders.passphrase(), 0o644)
    with pytest.warns(LooseKeyFile):
        async with snapferry.open_repository(config):
            pass


async def test_a_torn_slot_is_put_right_by_the_next_export(lab: Lab, holders: Keyholders) -> None:
    await _add(lab, key_file=holders.file("other"))
    good = slots(lab, "far")
    for key in good:
        lab.stores["far"][key] = good[key][:100]
        async with lab.repository() as repository:
            await repository.export(MemorySource(DATA), volume="v", block_size=BLOCK)
        assert slots(lab, "far") == good


async def test_a_store_cannot_hand_the_owner_of_a_key_another_repository(lab: Lab, holders: Keyholders) -> None:
    """All that a store knows of a slot is in the slot: what it makes of that opens nothing, under the same id or another."""
    stranger = MemoryDestination("near")
    from snapferry.repository.creating import create_repository

    await create_repository({"near": stranger}, read_key_file(holders.file("stranger")))
    lab.stores["near"] = {**stranger.store, **slots(lab, "near")}
    for name in ("snapferry", "other"):
        with pytest.raises(SnapferryError):
            async with holders.open(name, "near"):
                pass
