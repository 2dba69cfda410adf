"""Surveys: the semantics of a listing of all commits, for the price of the unknown ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry import _core
from snapferry.destination import Destination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable, SnapshotNotFound
from snapferry.repository import names, objects
from snapferry.repository.snapshots import list_names, list_snapshots
from snapferry.repository.summaries import Summaries
from snapferry.repository.survey import Survey, take_survey
from snapferry.testing.faults import FailsNth
from snapferry.transport.wrapper import Wrapper
from snapferry.types import Damage, Roots, Snapshot

KEYRING = _core.Keyring.generate()
BASE = Snapshot("00" * 16, "v", 1, datetime(2026, 1, 1, tzinfo=UTC), 0, 1 << 18, Roots(0, None, None))
Stores = dict[str, dict[str, bytes]]


class Counts(Wrapper):
    """Notes what is read."""

    def __init__(self, inner: Destination) -> None:
        super().__init__(inner)
        self.reads: list[str] = []

    async def read(self, key: str, limit: int) -> bytes:
        self.reads.append(key)
        return await self.inner.read(key, limit)


def snapshot(number: int, volume: str = "v", generation: int | None = None) -> Snapshot:
    created = BASE.created + timedelta(days=number)
    return dataclasses.replace(
        BASE, id=f"{number:08x}" * 4, volume=volume, generation=number if generation is None else generation, created=created
    )


def stored(*snapshots: Snapshot) -> dict[str, bytes]:
    return {names.snapshot(it.id): KEYRING.seal("commit", names.snapshot(it.id), objects.commit_payload(it)) for it in snapshots}


def note(snapshot_id: str) -> dict[str, bytes]:
    key = names.forgotten(snapshot_id)
    return {key: KEYRING.seal("forgotten", key, b"{}")}


async def survey(
    places: Mapping[str, Destination | dict[str, bytes]], known: Survey | None = None, seen: Mapping[str, set[str]] | None = None
) -> Survey:
    replicas = {name: MemoryDestination(name, it) if isinstance(it, dict) else it for name, it in places.items()}
    return await take_survey(KEYRING, replicas, await list_names(replicas), known.summaries if known else Summaries(), seen or {})


async def find(found: Survey, places: Mapping[str, Destination | dict[str, bytes]], reference: str) -> str:
    replicas = {name: MemoryDestination(name, it) if isinstance(it, dict) else it for name, it in places.items()}
    return (await found.find(KEYRING, replicas, reference)).snapshot.id


async def test_a_commit_is_read_once_and_then_only_when_it_is_used() -> None:
    near = Counts(MemoryDestination("near", stored(*(snapshot(n) for n in range(1, 100)))))
    first = await survey({"near": near})
    assert len(near.reads) == 99
    near.reads.clear()
    await near.inner.create(names.snapshot(snapshot(100).id), stored(snapshot(100))[names.snapshot(snapshot(100).id)])
    second = await survey({"near": near}, first)
    assert near.reads == [names.snapshot(snapshot(100).id)]
    assert [it.snapshot.generation for it in second.listed("v")] == list(range(1, 101))
    near.reads.clear()
    assert await find(second, {"near": near}, "v~3") == snapshot(97).id
    assert near.reads == [names.snapshot(snapshot(97).id)]


# By place and number: absent, good, torn, of another name; with a good note, a bad one, or none.
copies = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 6)),
    st.tuples(st.sampled_from(["absent", "good", "good", "good", "torn", "other"]), st.sampled_from(["none", "none", "good", "bad"])),
    max_size=18,
)


def stores(chosen: Mapping[tuple[str, int], tuple[str, str]]) -> Stores:
    made: Stores = {"a": {}, "b": {}, "c": {}}
    for (place, number), (copy, noted) in chosen.items():
        it = snapshot(number, "v" if number < 4 else "w", number // 2)
        key = names.snapshot(it.id)
        good = stored(it)[key]
        other = stored(snapshot(9))[names.snapshot(snapshot(9).id)]
        if copy != "absent":
            made[place][key] = {"good": good, "torn": good[:-1], "other": other}[copy]
        if noted != "none":
            made[place][names.forgotten(it.id)] = note(it.id)[names.forgotten(it.id)] if noted == "good" else b"bad"
    return made


def by_object(damage: list[Damage]) -> set[tuple[str, str]]:
    return {(it.destination, it.object) for it in damage}


@given(copies, copies)
async def test_it_says_what_a_listing_of_all_commits_says(
    before: Mapping[tuple[str, int], tuple[str, str]], after: Mapping[tuple[str, int], tuple[str, str]]
) -> None:
    """From nothing, exactly; after an earlier one, of other contents, but for copies of known commits, which it does not look at again."""
    places = stores(before)
    first = await survey(places)
    whole = await list_snapshots(KEYRING, {name: MemoryDestination(name, store) for name, store in places.items()})
    assert {it.snapshot.id: it.destinations for it in first.listed()} == {key: it.destinations for key, it in whole.snapshots.items()}
    assert first.broken == whole.broken
    commits = {it for it in by_object(whole.damage) if it[1].startswith(names.SNAPSHOTS)}
    assert commits == {it for it in by_object(first.damage) if it[1].startswith(names.SNAPSHOTS)}
    assert by_object(first.damage) <= by_object(whole.damage)
    assert {name: first.held[name] for name in places} == whole.held
    for volume in ("v", "w"):
        assert [it.snapshot.id for it in first.listed(volume)] == [it.snapshot.id for it in whole.of_volume(volume)]
        assert [it.id for it in first.newest_first(volume)] == [it.snapshot.id for it in whole.of_volume(volume)][::-1]
    assert first.volumes() == whole.volumes()

    places = stores({**before, **after})
    second = await survey(places, first)
    whole = await list_snapshots(KEYRING, {name: MemoryDestination(name, store) for name, store in places.items()})
    assert whole.snapshots.keys() <= {it.snapshot.id for it in second.listed()} <= whole.snapshots.keys() | whole.broken.keys()
    for reference in ("v", "v~1", "w", "w~1", *(snapshot(number).id for number in range(1, 7)), "v@2026-01-03"):
        try:
            expected: str | None = whole.resolve(reference).snapshot.id
        except SnapshotNotFound:
            expected = None
        try:
            got: str | None = await find(second, places, reference)
        except SnapshotNotFound:
            got = None
        assert got == expected, reference


async def test_a_commit_that_rotted_since_is_passed_over_when_it_is_asked_for() -> None:
    store = stored(snapshot(1), snapshot(2))
    known = await survey({"near": store})
    store[names.snapshot(snapshot(2).id)] = b"rotten"
    again = await survey({"near": store}, known)
    assert again.damage == []
    assert await find(again, {"near": store}, "v") == snapshot(1).id
    assert by_object(again.damage) == {("near", names.snapshot(snapshot(2).id))}
    with pytest.raises(SnapshotNotFound, match="damaged on every destination"):
        await find(again, {"near": store}, snapshot(2).id)


async def test_a_commit_that_cannot_be_read_now_is_an_error_and_never_an_older_snapshot() -> None:
    store = stored(snapshot(1), snapshot(2))
    known = await survey({"near": store})
    broken = FailsNth(MemoryDestination("near", store), "read", 1, lambda: DestinationUnreachable("down", "near"))
    again = await survey({"near": broken}, known)
    with pytest.raises(DestinationUnreachable):
        await find(again, {"near": broken}, "v")
    # An export may go on: what it compares with only saves work.
    broken = FailsNth(MemoryDestination("near", store), "read", 1, lambda: DestinationUnreachable("down", "near"))
    again = await survey({"near": broken}, known)
    latest = await again.latest(KEYRING, {"near": broken}, "v")
    assert latest is not None
    assert latest.snapshot == snapshot(1)
    assert list(again.unread) == [snapshot(2).id]


async def test_a_commit_that_went_since_it_was_listed_is_nobodys() -> None:
    near, far = stored(snapshot(1), snapshot(2)), stored(snapshot(1), snapshot(2))
    found = await survey({"near": near, "far": far})
    del near[names.snapshot(snapshot(2).id)]
    replicas = {"near": MemoryDestination("near", near), "far": MemoryDestination("far", far)}
    assert (await found.find(KEYRING, replicas, "v")).destinations == ("far",)
    del far[names.snapshot(snapshot(2).id)]
    found = await survey({"near": stored(snapshot(1), snapshot(2))}, found)
    assert await find(found, {"near": stored(snapshot(1))}, "v") == snapshot(1).id


async def test_only_notes_that_matter_are_read() -> None:
    noted = [snapshot(n) for n in range(1, 50)]
    store = stored(snapshot(1), snapshot(99))
    for it in noted:
        store |= note(it.id)
    near = Counts(MemoryDestination("near", store))
    known = await survey({"near": stored(snapshot(1), snapshot(99))})
    found = await survey({"near": near}, known, {"near": {snapshot(1).id, snapshot(7).id, snapshot(98).id}})
    # One that is held, and one that was seen; the others tell of snapshots that this machine never met.
    assert sorted(near.reads) == [names.forgotten(snapshot(1).id), names.forgotten(snapshot(7).id)]
    assert found.forgotten == {"near": {snapshot(1).id, snapshot(7).id}}
    assert [it.snapshot.id for it in found.listed()] == [snapshot(99).id]


async def test_places_are_told_for_each_snapshot() -> None:
    found = await survey({"a": stored(snapshot(1), snapshot(2)), "b": stored(snapshot(2), snapshot(3)), "c": {}})
    assert [(it.snapshot.generation, it.destinations) for it in found.listed()] == [(1, ("a",)), (2, ("a", "b")), (3, ("b",))]
    assert found.beginning_with("0000000") == {snapshot(n).id for n in (1, 2, 3)}
