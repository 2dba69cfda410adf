"""Puts the small objects of one destination in order again: commits, sessions, notes.

Nothing is decided anew: a commit comes from its session's end or from another place, an end is made again only where its commit is there
and says what it was. A session that ended, nobody can tell how, is removed as a collector removes one: its first beat first, its end last
(docs/format.md, "Deletion"), so that a writer that was asleep finds itself fenced.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from snapferry import _core
from snapferry.destination import Destination, is_there, list_keys
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.repository import names, objects
from snapferry.repository.forgetting import forget_at
from snapferry.repository.notes import good_notes
from snapferry.repository.sessions import create_checked, decided_commit
from snapferry.repository.small import open_object, read_object

Replicas = Mapping[str, Destination]

_MOST_BEATS = 100_000
"""A year of them: nobody is believed who says more."""


async def mend_commit(keyring: _core.Keyring, destination: Destination, snapshot: str, replicas: Replicas) -> bool:
    """Puts a broken or missing commit back; False if it is not the session's here to put back, or no place has it in good order.

    A commit that is missing and that no session here has decided is none of this place's any more: that is for a sync, which looks at its packs.
    """
    key = names.snapshot(snapshot)
    if await good_notes(keyring, destination, {snapshot}):
        await destination.delete(key)  # The note wins; a broken copy of what was let go is nothing.
        return True
    sealed = await _decided(keyring, destination, snapshot)
    if sealed is None and await is_there(destination, key):
        sealed = await _from_others(keyring, key, {name: other for name, other in replicas.items() if name != destination.name})
    if sealed is None:
        return False
    await create_checked(destination, key, sealed)
    return True


async def mend_session(keyring: _core.Keyring, destination: Destination, session: str) -> bool:
    """Puts the objects of a session that has ended in order; False for one that has not, which is its writer's or a prune's to end."""
    keys = [key for key in await list_keys(destination, f"{names.SESSIONS}{session}/") if names.parse_session(key)]
    there = {int(part) for key in keys if (part := names.parse_session(key)[1]) != names.END}  # type: ignore[index]
    last, end = max(there, default=0), names.session_end(session)
    commit = await _own_commit(keyring, destination, session)
    try:
        payload = await read_object(keyring, destination, "end", end, objects.END_LIMIT)
        last = max(last, objects.decode(objects.EndObject, payload, end).beat)
        whole = True
    except (ObjectDamaged, ObjectNotFound):
        whole = False
    if not whole and commit is None:
        if end not in keys:
            return False
        await _remove(destination, session, keys)
        return True
    # Once there are collections, a beat that is missing is one that is being removed with its session.
    collected = bool(await list_keys(destination, names.COLLECT))
    for number in sorted(there) if collected else range(min(last, _MOST_BEATS) + 1):
        await _stand_in(keyring, destination, session, number)
    if not whole and commit is not None:
        described = objects.EndObject(session, "committed", objects.now(), objects.pack_commit(commit), last)
        await create_checked(destination, end, keyring.seal("end", end, objects.encode(described)))
    return True


async def mend_note(keyring: _core.Keyring, destination: Destination, snapshot: str) -> bool:
    """Makes a broken note anew; False where the snapshot is still there, so that nobody can tell whether it was ever let go.

    Only who could forget can: a key that may only write changes nothing.
    """
    if not keyring.reads_data or await is_there(destination, names.snapshot(snapshot)):
        return False
    await forget_at(keyring, destination, snapshot)
    return True


async def _decided(keyring: _core.Keyring, destination: Destination, snapshot: str) -> bytes | None:
    """The commit in the end of the snapshot's own session here, if that counts."""
    try:
        payload = await read_object(keyring, destination, "end", names.session_end(snapshot), objects.END_LIMIT)
        decided = decided_commit(keyring, payload, snapshot, destination.name)
    except (ObjectDamaged, ObjectNotFound):
        return None
    counts = decided is not None and decided.snapshot == snapshot and await is_there(destination, names.beat(snapshot, 0))
    return decided.sealed if decided is not None and counts else None


async def _from_others(keyring: _core.Keyring, key: str, replicas: Replicas) -> bytes | None:
    for name, replica in replicas.items():
        try:
            data = await replica.read(key, objects.COMMIT_LIMIT)
            open_object(keyring, "commit", key, data, name)
        except DestinationError:
            continue
        return data
    return None


async def _own_commit(keyring: _core.Keyring, destination: Destination, session: str) -> bytes | None:
    key = names.snapshot(session)
    try:
        data = await destination.read(key, objects.COMMIT_LIMIT)
        open_object(keyring, "commit", key, data, destination.name)
    except (ObjectDamaged, ObjectNotFound):
        return None
    return data


async def _stand_in(keyring: _core.Keyring, destination: Destination, session: str, number: int) -> None:
    """A beat of a session that has ended says nothing any more, but that it was there."""
    key = names.beat(session, number)
    try:
        await read_object(keyring, destination, "session", key)
    except ObjectNotFound:
        pass
    except ObjectDamaged:
        await destination.delete(key)
    else:
        return
    described = objects.SessionObject(session, number, "", objects.now(), secrets.token_hex(16))
    await destination.create(key, keyring.seal("session", key, objects.encode(described)))


async def _remove(destination: Destination, session: str, keys: list[str]) -> None:
    end = names.session_end(session)
    beats = sorted((key for key in keys if key != end), key=lambda key: int(key.rpartition("/")[2]))
    for key in [names.beat(session, 0), *beats, end]:
        await destination.delete(key)
