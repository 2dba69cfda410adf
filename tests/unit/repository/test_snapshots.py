"""Names of snapshots, and listings of several places."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from snapferry import _core
from snapferry.destination import Destination
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable, SnapshotNotFound
from snapferry.repository import names, objects
from snapferry.repository.snapshots import Listing, list_snapshots
from snapferry.testing.faults import FailsNth
from snapferry.types import Roots, Snapshot

KEYRING = _core.Keyring.generate()
BASE = Snapshot("00" * 16, "v", 1, datetime(2026, 1, 1, tzinfo=UTC), 0, 1 << 18, Roots(0, None, None))


def _snapshot(number: int, volume: str, generation: int) -> Snapshot:
    return dataclasses.replace(BASE, id=f"{number:032x}", volume=volume, generation=generation)


SNAPSHOTS = [
    _snapshot(0xABCDEF01 << 96, "v", 1),
    _snapshot(0xABCDEF02 << 96, "v", 2),
    _snapshot(0xABCDEF01 << 96 | 1, "w", 1),
    _snapshot(7, "v", 2),
]


def _stored(*snapshots: Snapshot) -> dict[str, bytes]:
    return {names.snapshot(it.id): KEYRING.seal("commit", names.snapshot(it.id), objects.commit_payload(it)) for it in snapshots}


async def _listing(**stores: dict[str, bytes]) -> Listing:
    return await list_snapshots(KEYRING, {name: MemoryDestination(name, store) for name, store in stores.items()})


async def test_references() -> None:
    listing = await _listing(a=_stored(*SNAPSHOTS))
    of = {reference: listing.resolve(reference).snapshot.id for reference in ("v", "v~1", "v~2", "w", "abcdef02", SNAPSHOTS[0].id)}
    # The same generation twice (two exports at once): ties by id.
    assert of == {
        "v": SNAPSHOTS[1].id,
        "v~1": SNAPSHOTS[3].id,
        "v~2": SNAPSHOTS[0].id,
        "w": SNAPSHOTS[2].id,
        "abcdef02": SNAPSHOTS[1].id,
        SNAPSHOTS[0].id: SNAPSHOTS[0].id,
    }
    with pytest.raises(SnapshotNotFound, match="ambiguous"):
        listing.resolve("abcdef01")
    with pytest.raises(SnapshotNotFound, match="3 snapshots"):
        listing.resolve("v~3")
    for unknown in ("x", "abcdef0", "abcdef03", "", "V", "v~", "v~-1"):
        with pytest.raises(SnapshotNotFound):
            listing.resolve(unknown)


async def test_one_good_copy_is_enough_and_the_bad_one_is_damage() -> None:
    a, b = _stored(SNAPSHOTS[0]), _stored(SNAPSHOTS[0])
    key = names.snapshot(SNAPSHOTS[0].id)
    a[key] = a[key][:-1]
    listing = await _listing(a=a, b=b)
    assert listing.snapshots[SNAPSHOTS[0].id].snapshot == SNAPSHOTS[0]
    assert [(damage.destination, damage.object) for damage in listing.damage] == [("a", key)]


async def test_no_good_copy_is_an_unknown_snapshot_and_says_why() -> None:
    a = _stored(SNAPSHOTS[0])
    a[names.snapshot(SNAPSHOTS[0].id)] = b"torn"
    listing = await _listing(a=a)
    for reference in (SNAPSHOTS[0].id, "v"):
        with pytest.raises(SnapshotNotFound, match="damaged") as caught:
            listing.resolve(reference)
        assert caught.value.exit_code == 1


async def test_a_commit_under_another_name_is_damage() -> None:
    stored = _stored(SNAPSHOTS[0])
    listing = await _listing(a={names.snapshot(SNAPSHOTS[1].id): stored[names.snapshot(SNAPSHOTS[0].id)]})
    assert not listing.snapshots
    assert listing.broken


async def test_a_note_wins_where_it_lies_if_it_is_ours() -> None:
    key = names.forgotten(SNAPSHOTS[0].id)
    note = {key: KEYRING.seal("forgotten", key, b"{}")}
    listing = await _listing(a=_stored(SNAPSHOTS[0]) | note, b=_stored(SNAPSHOTS[0]))
    assert listing.snapshots[SNAPSHOTS[0].id].destinations == ("b",)
    forged = await _listing(a=_stored(SNAPSHOTS[0]) | {key: b"forged"})
    assert SNAPSHOTS[0].id in forged.snapshots
    assert [damage.object for damage in forged.damage] == [key]


async def test_a_place_that_cannot_be_listed_is_passed_over() -> None:
    places: dict[str, Destination] = {
        "a": FailsNth(MemoryDestination("a", _stored(SNAPSHOTS[1])), "list", 1, lambda: DestinationUnreachable("down")),
        "b": MemoryDestination("b", _stored(SNAPSHOTS[0])),
    }
    listing = await list_snapshots(KEYRING, places)
    assert list(listing.failures) == ["a"]
    assert list(listing.snapshots) == [SNAPSHOTS[0].id]
    with pytest.raises(SnapshotNotFound, match="failed: a"):
        listing.resolve(SNAPSHOTS[1].id)


async def test_keys_that_are_no_names_of_ours_are_passed_over() -> None:
    listing = await _listing(a={"snapshots/README": b"hello", **_stored(SNAPSHOTS[0])})
    assert list(listing.snapshots) == [SNAPSHOTS[0].id]
    assert not listing.damage
