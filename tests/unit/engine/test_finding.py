"""Finding snapshots through the facade: what is read for it, what the catalog may be trusted with, and whose name wins."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from typing import ClassVar

import pytest

from snapferry.catalog import Catalog
from snapferry.engine import Repository
from snapferry.errors import DestinationUnreachable, SnapshotNotFound
from snapferry.repository import names, objects
from snapferry.testing.faults import FailsNth
from snapferry.testing.sources import MemorySource
from snapferry.transport.wrapper import Wrapper
from snapferry.types import ExportResult
from tests.support.lab import BLOCK, Lab, MakeLab, changed, volume

DATA = volume(1)


class Counts(Wrapper):
    """Counts the objects that are read, by what they are."""

    reads: ClassVar[Counter[str]] = Counter()

    async def read(self, key: str, limit: int) -> bytes:
        self.reads[key.split("/")[0]] += 1
        return await super().read(key, limit)


@pytest.fixture
async def lab(make_lab: MakeLab) -> Lab:
    lab = await make_lab()
    async with lab.repository() as repository:
        lab.id = (await export(repository, DATA)).id
    return lab


async def export(repository: Repository, data: bytes, name: str = "v") -> ExportResult:
    return await repository.export(MemorySource(data), volume=name, block_size=BLOCK)


async def multiply(lab: Lab, count: int) -> None:
    """More snapshots of other volumes and of this one, as good as any, made without exports."""
    keyring = await lab.keyring()
    key = names.snapshot(lab.id)
    commit = objects.parse_commit(keyring.open("commit", key, lab.stores["near"][key]), lab.id)
    for number in range(count):
        copy = replace(commit, id=names.new_id(), volume="v" if number % 2 else f"w{number % 7}", generation=number + 2)
        key = names.snapshot(copy.id)
        for store in lab.stores.values():
            store[key] = keyring.seal("commit", key, objects.commit_payload(copy))


async def test_what_is_read_does_not_grow_with_the_snapshots(lab: Lab) -> None:
    counted: list[dict[str, Counter[str]]] = []
    for more in (0, 150):
        await multiply(lab, more)
        async with lab.repository() as repository:
            await repository.list()
        for name in lab.names:
            lab.wrappers[name] = Counts
        found: dict[str, Counter[str]] = {}
        for what in ("list", "id", "volume", "prefix", "export"):
            async with lab.repository() as repository:
                Counts.reads.clear()
                if what == "list":
                    assert len(await repository.list()) == 1 + more + len(counted)
                elif what == "export":
                    await export(repository, changed(DATA, len(counted), [5]))
                else:
                    reference = {"id": lab.id, "volume": "v", "prefix": lab.id[:12]}[what]
                    assert await lab.contents(repository, reference) == DATA
                found[what] = Counter(
                    {kind: count for kind, count in Counts.reads.items() if kind in ("snapshots", "sessions", "forgotten")}
                )
        counted.append(found)
    assert counted[0] == counted[1]
    assert counted[0]["list"] == Counter()
    assert counted[0]["id"] == Counter(snapshots=2, forgotten=2)
    assert counted[0]["volume"] == counted[0]["prefix"] == Counter(snapshots=1)


async def test_a_full_id_needs_no_catalog_and_no_listing(lab: Lab) -> None:
    await multiply(lab, 20)
    for name in lab.names:
        lab.wrappers[name] = lambda inner: FailsNth(
            inner, "list", 2, lambda: AssertionError("listed"), times=99
        )  # The first lists the keys.
    async with lab.repository("near", "far") as repository, repository.open_snapshot(lab.id) as reader:
        assert reader.snapshot.id == lab.id


async def test_a_volume_goes_before_an_id(lab: Lab) -> None:
    other = changed(DATA, 3, [1])
    async with lab.repository() as repository:
        named = await export(repository, other, lab.id)
        assert await lab.contents(repository, lab.id) == other
        assert await lab.contents(repository, named.id) == other
        assert await lab.contents(repository, f"{lab.id}~0") == other
    async with lab.repository() as repository:
        assert await lab.contents(repository, lab.id) == other


async def test_an_id_is_found_where_it_is_and_said_to_be_gone_where_it_was(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    del lab.stores["near"][names.snapshot(lab.id)]
    async with lab.repository() as repository:
        details = await repository.show(lab.id)
    assert [(it.destination, it.committed) for it in details.replicas] == [("near", False), ("far", True)]
    assert f"near: snapshots/{lab.id}: was seen here before" in caplog.text
    caplog.clear()
    async with lab.repository("near", "far") as blank:
        await blank.show(lab.id)
    assert not caplog.records


async def test_a_torn_copy_is_damage_whoever_else_has_it(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.stores["near"][names.snapshot(lab.id)] = b"torn"
    for reference in (lab.id, "v"):
        caplog.clear()
        async with lab.repository() as repository:
            details = await repository.show(reference)
        assert [it.committed for it in details.replicas] == [True, True]
        assert [it.object for it in details.replicas[0].damage] == [names.snapshot(lab.id)]
        assert f"near: snapshots/{lab.id}" in caplog.text
    lab.stores["far"][names.snapshot(lab.id)] = b"torn"
    async with lab.repository() as repository:
        with pytest.raises(SnapshotNotFound, match="damaged on every destination"):
            await repository.show(lab.id)


async def test_a_note_hides_an_id_where_it_lies(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    await forget(lab, lab.id, "near", remove=False)
    async with lab.repository() as repository:
        assert [it.committed for it in (await repository.show(lab.id)).replicas] == [False, True]
        await forget(lab, lab.id, "far", remove=False)
        with pytest.raises(SnapshotNotFound):
            await repository.show(lab.id)
    assert "seen here before" not in caplog.text


async def test_a_destination_that_is_down_is_said_so(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.wrappers["near"] = FailsSnapshots
    async with lab.repository() as repository:
        assert await lab.contents(repository, lab.id) == DATA
    assert "near: down" in caplog.text
    lab.wrappers["far"] = lab.wrappers["near"]
    async with lab.repository() as repository:
        with pytest.raises(DestinationUnreachable):
            await lab.contents(repository, lab.id)


class FailsSnapshots(Wrapper):
    """Does not answer for commits."""

    async def read(self, key: str, limit: int) -> bytes:
        if key.startswith(names.SNAPSHOTS):
            raise DestinationUnreachable("down", self.name)
        return await super().read(key, limit)


async def test_what_was_forgotten_is_no_roll_back_even_when_its_note_is_gone(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    async with lab.repository() as repository:
        two = await export(repository, changed(DATA, 1, [3]))
    for name in lab.names:
        await forget(lab, lab.id, name)
    async with lab.repository() as repository:
        assert [it.snapshot.id for it in await repository.list()] == [two.id]
    for store in lab.stores.values():
        # As collections leave it: the session's objects go first, then the note.
        for key in [key for key in store if key.startswith(f"{names.SESSIONS}{lab.id}/") or key == names.forgotten(lab.id)]:
            del store[key]
    async with lab.repository() as repository:
        assert [it.snapshot.id for it in await repository.list()] == [two.id]
        assert (await repository.verify()).exit_code == 0
    assert not caplog.records


async def forget(lab: Lab, snapshot_id: str, name: str, *, remove: bool = True) -> None:
    """As a forget would leave it, or stop half-way."""
    keyring = await lab.keyring()
    key = names.forgotten(snapshot_id)
    lab.stores[name][key] = keyring.seal("forgotten", key, b"{}")
    if remove:
        lab.stores[name].pop(names.snapshot(snapshot_id), None)


def catalog_path(lab: Lab) -> str:
    return lab.config.catalog_url().removeprefix("sqlite:///")


@pytest.mark.parametrize("position", [0, 20, 50, 90, 300, -40, -1])
async def test_a_catalog_that_rotted_changes_no_answer(lab: Lab, caplog: pytest.LogCaptureFixture, position: int) -> None:
    """The latest must not become an older one because a byte of this machine's memory is another."""
    async with lab.repository() as repository:
        newest = changed(DATA, 1, [3])
        two = await export(repository, newest)
    connection = sqlite3.connect(catalog_path(lab))
    for run, sealed in connection.execute("SELECT run, sealed FROM summaries").fetchall():
        rotten = bytearray(sealed)
        rotten[position] ^= 0x01
        connection.execute("UPDATE summaries SET sealed = ? WHERE run = ?", (bytes(rotten), run))
    connection.commit()
    connection.close()
    async with lab.repository() as repository:
        assert await lab.contents(repository, "v") == newest
        assert [it.snapshot.id for it in await repository.list("v")] == [lab.id, two.id]
    assert "the commits are read again" in caplog.text
    caplog.clear()
    async with lab.repository() as repository:
        await repository.list()
    assert not caplog.records


async def test_runs_are_merged_and_those_of_what_is_gone_are_let_go(lab: Lab) -> None:
    for count in (3, 1500, 5):
        await multiply(lab, count)
        async with lab.repository() as repository:
            await repository.list()
    with Catalog(lab.config.catalog_url()) as catalog:
        assert len(catalog.runs(str(lab.config.repository.id))) <= 3
    for store in lab.stores.values():
        for key in [key for key in store if key.startswith(names.SNAPSHOTS) and key != names.snapshot(lab.id)]:
            del store[key]
    async with lab.repository() as repository:
        assert [it.snapshot.id for it in await repository.list()] == [lab.id]
        # What was given before is not given again.
        assert (await export(repository, DATA)).snapshot.generation == 1502
    with Catalog(lab.config.catalog_url()) as catalog:
        runs = catalog.runs(str(lab.config.repository.id)).values()
    assert sum(len(sealed or b"") for sealed in runs) < 2000
