"""Sessions: beats, ends, fences, clones, and commits that a killed writer left half done."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from datetime import UTC, datetime

import pytest

from snapferry import _core
from snapferry.destination.memory import MemoryDestination
from snapferry.errors import DestinationUnreachable, Fenced, ObjectDamaged
from snapferry.repository import names, objects
from snapferry.repository.collections import Condemned, conclude, publish, settle
from snapferry.repository.sessions import Session, create_checked, finish_commits
from snapferry.testing.faults import FailsNth
from snapferry.types import Roots, Snapshot

KEYRING = _core.Keyring.generate()
PARENT = Snapshot("aa" * 16, "v", 1, datetime(2026, 1, 1, tzinfo=UTC), 0, 1 << 18, Roots(0, None, None))


def _sealed(snapshot: Snapshot) -> bytes:
    return KEYRING.seal("commit", names.snapshot(snapshot.id), objects.commit_payload(snapshot))


@pytest.fixture
def place() -> MemoryDestination:
    return MemoryDestination("place", {names.snapshot(PARENT.id): _sealed(PARENT)})


async def test_a_session_from_its_begin_to_its_commit(place: MemoryDestination) -> None:
    mine = dataclasses.replace(PARENT, id=names.new_id(), generation=2)
    session = Session(KEYRING, place, mine.id, "v", PARENT)
    begun = await session.begin()
    assert (begun.has_parent, begun.avoided) == (True, frozenset())
    await session.beat()
    await session.end("committed", _sealed(mine))
    assert place.store[names.snapshot(mine.id)] == _sealed(mine)
    # One beat more, right before the end.
    assert {names.beat(mine.id, 0), names.beat(mine.id, 1), names.beat(mine.id, 2), names.session_end(mine.id)} <= place.store.keys()
    pinned = objects.decode(objects.SessionObject, KEYRING.open("session", names.beat(mine.id, 0), place.store[names.beat(mine.id, 0)]), "")
    assert pinned.parent == objects.pin_object(PARENT)


async def test_a_parent_that_is_gone_or_broken_is_none(place: MemoryDestination) -> None:
    place.store[names.snapshot(PARENT.id)] += b"x"
    assert not (await Session(KEYRING, place, names.new_id(), "v", PARENT).begin()).has_parent
    del place.store[names.snapshot(PARENT.id)]
    assert not (await Session(KEYRING, place, names.new_id(), "v", PARENT).begin()).has_parent
    assert not (await Session(KEYRING, place, names.new_id(), "v", None).begin()).has_parent


async def test_what_the_newest_collection_condemned_is_avoided_and_accepted(place: MemoryDestination) -> None:
    await publish(KEYRING, place, Condemned(3, frozenset({b"3" * 32}), frozenset()))
    await settle(KEYRING, place, 3, frozenset({b"3" * 32}))
    await conclude(KEYRING, place, 3)
    begun = await Session(KEYRING, place, names.new_id(), "v", PARENT).begin()
    assert begun.avoided == {b"3" * 32}  # Deletes that come late would hit what is put there again.
    await publish(KEYRING, place, Condemned(12, frozenset({b"4" * 32}), frozenset()))
    session = Session(KEYRING, place, mine := names.new_id(), "v", PARENT)
    assert (await session.begin()).avoided == {b"4" * 32}
    assert _accepted(place, mine) == 12


async def test_a_collection_that_comes_up_is_accepted_only_if_nothing_of_it_is_relied_on(place: MemoryDestination) -> None:
    session = Session(KEYRING, place, mine := names.new_id(), "v", PARENT)
    session.relies_on = lambda packs: b"4" * 32 in packs
    await session.begin()
    await publish(KEYRING, place, Condemned(1, frozenset({b"4" * 32}), frozenset()))
    await session.beat()
    assert _accepted(place, mine) == 0
    await publish(KEYRING, place, Condemned(2, frozenset({b"5" * 32}), frozenset()))
    await session.beat()
    assert _accepted(place, mine) == 2


async def test_an_end_does_not_count_once_the_first_beat_is_gone(place: MemoryDestination) -> None:
    """As after a session was fenced, slept through two collections, and finds its end's name free again."""
    mine = dataclasses.replace(PARENT, id=names.new_id())
    session = Session(KEYRING, place, mine.id, "v", PARENT)
    await session.begin()
    del place.store[names.beat(mine.id, 0)]
    with pytest.raises(Fenced):
        await session.end("committed", _sealed(mine))
    assert names.snapshot(mine.id) not in place.store
    assert await finish_commits(KEYRING, place) == []
    assert names.snapshot(mine.id) not in place.store


def _accepted(place: MemoryDestination, session: str) -> int:
    newest = max((key for key in place.store if key.startswith(f"sessions/{session}/")), key=lambda key: int(key.rpartition("/")[2]))
    return objects.decode(objects.SessionObject, KEYRING.open("session", newest, place.store[newest]), "").collection


async def test_a_clone_collides_with_itself(place: MemoryDestination) -> None:
    session_id = names.new_id()
    one, clone = (Session(KEYRING, place, session_id, "v", None) for _ in range(2))
    await one.begin()
    with pytest.raises(Fenced) as caught:
        await clone.begin()
    assert caught.value.exit_code == 11
    await one.beat()
    await one.end("abandoned")
    with pytest.raises(Fenced):
        await clone.end("committed", _sealed(PARENT))


async def test_beats_go_on_through_errors_and_stop_when_fenced(place: MemoryDestination) -> None:
    session_id = names.new_id()
    flaky = FailsNth(place, "create", 2, lambda: DestinationUnreachable("once"))
    session = Session(KEYRING, flaky, session_id, "v", None)
    await session.begin()
    beating = asyncio.create_task(session.beat_forever(0.001))
    while flaky.calls < 5:
        await asyncio.sleep(0.001)
    newest = max(int(key.rsplit("/", 1)[1]) for key in place.store if key.startswith("sessions/"))
    for number in range(newest + 1, newest + 1000):
        place.store.setdefault(names.beat(session_id, number), b"somebody else's")
    with pytest.raises(Fenced):
        await beating


async def test_a_commit_that_was_decided_is_finished_by_whoever_comes(place: MemoryDestination) -> None:
    mine = dataclasses.replace(PARENT, id=names.new_id(), generation=2)
    session = Session(KEYRING, place, mine.id, "v", PARENT)
    await session.begin()
    await session.end("committed", _sealed(mine))
    del place.store[names.snapshot(mine.id)]
    abandoned = Session(KEYRING, place, names.new_id(), "v", PARENT)
    await abandoned.begin()
    await abandoned.end("abandoned")
    assert await finish_commits(KEYRING, place) == [mine.id]
    assert place.store[names.snapshot(mine.id)] == _sealed(mine)
    assert await finish_commits(KEYRING, place) == []


async def test_a_forgotten_snapshot_is_not_brought_back(place: MemoryDestination) -> None:
    mine = dataclasses.replace(PARENT, id=names.new_id(), generation=2)
    session = Session(KEYRING, place, mine.id, "v", PARENT)
    await session.begin()
    await session.end("committed", _sealed(mine))
    del place.store[names.snapshot(mine.id)]
    place.store[names.forgotten(mine.id)] = b"note"
    assert await finish_commits(KEYRING, place) == []


async def test_a_broken_end_is_reported_and_passed_over(place: MemoryDestination) -> None:
    place.store[names.session_end("bb" * 16)] = b"garbage"
    other = KEYRING.seal("end", names.session_end("cc" * 16), objects.encode(objects.EndObject("dd" * 16, "committed", objects.now(), "")))
    place.store[names.session_end("cc" * 16)] = other
    seen: list[str] = []
    assert await finish_commits(KEYRING, place, lambda key, reason: seen.append(key)) == []
    assert seen == [names.session_end("bb" * 16)]


async def test_a_broken_copy_is_replaced_and_another_object_never(place: MemoryDestination) -> None:
    key, data = names.snapshot(PARENT.id), _sealed(PARENT)
    await create_checked(place, key, data)
    for broken in (b"", data[:-1], data[:-1] + b"?", secrets.token_bytes(3 << 20)):
        place.store[key] = broken
        await create_checked(place, key, data)
        assert place.store[key] == data
    other = KEYRING.seal("commit", key, objects.commit_payload(dataclasses.replace(PARENT, volume="other")))
    place.store[key] = other
    with pytest.raises(ObjectDamaged):
        await create_checked(place, key, data)
    assert place.store[key] == other
