"""A writer's sessions, one per destination: signs of life that pin what it builds on, and one end that decides.

No lock and no clock: every object is created if absent, and whoever creates a session's ``end`` has decided it (docs/format.md). The
session's id is its snapshot's id, so that a listing alone shows which commits still lack their copy under ``snapshots/``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from snapferry import _core
from snapferry.destination import Destination, is_there, list_keys
from snapferry.errors import DestinationError, Fenced, ObjectDamaged, ObjectNotFound
from snapferry.repository import names, objects
from snapferry.repository.collections import list_collections, packs_to_avoid
from snapferry.repository.gathering import together
from snapferry.repository.notes import good_notes
from snapferry.repository.small import open_object, read_object
from snapferry.repository.snapshots import read_commit
from snapferry.types import Snapshot

BEAT_SECONDS = 300.0
_ABANDON_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session found when it began at one destination.

    Attributes:
        has_parent: the parent's commit was there, in good order, before and after it was pinned.
        avoided: packs that are deleted there, or about to be: not to be built on, not to be taken for present, not to be put there again.
    """

    has_parent: bool
    avoided: frozenset[bytes]


class Session:
    """One export's session at one destination.

    Arguments:
        destination: where; open for writing.
        session_id: 32 hex digits; the snapshot's id.
        volume: the volume's name.
        parent: the snapshot to build on, pinned here if it is there.
        brings: the snapshot that it is to commit, if not its own: one that others have made elsewhere.

    Attributes:
        bytes_sent: of the objects it created.
        begun: whether its first sign of life is there for sure.
    """

    def __init__(
        self,
        keyring: _core.Keyring,
        destination: Destination,
        session_id: str,
        volume: str,
        parent: Snapshot | None,
        brings: str | None = None,
    ) -> None:
        self._keyring = keyring
        self._destination = destination
        self._id = session_id
        self._volume = volume
        self._parent = parent
        self._brings = brings
        self._beat = 0
        self._collection = 0
        self.bytes_sent = 0
        self.begun = False
        self.relies_on: Callable[[frozenset[bytes]], bool] = bool
        """Whether the session relies on any of these packs; on any at all, unless it is told better."""

    async def begin(self) -> Begun:
        """Opens the session: reads the parent's commit, pins it, reads it again, and looks for collections, in this order.

        A parent that is not there is not pinned: nobody could tell what it needs there. What the newest collection has condemned is not to be
        used; so it counts as accepted, which the next beat says.
        """
        has_parent = await self._parent_there()
        if not has_parent:
            self._parent = None
        self._collection = (await list_collections(self._destination)).newest
        await self._create_beat()
        self.begun = True
        if has_parent and not await self._parent_there():
            has_parent, self._parent = False, None
        newest, avoided = await packs_to_avoid(self._keyring, self._destination)
        if newest > self._collection:
            self._collection = newest
            self._beat += 1
            await self._create_beat()
        return Begun(has_parent, avoided)

    async def beat(self) -> None:
        """One more sign of life; ``Fenced`` if somebody else beats under this id.

        A collection that has come up is accepted if nothing that it condemned is relied on. Else the collector waits for the session's end.
        """
        newest, avoided = await packs_to_avoid(self._keyring, self._destination)
        if newest > self._collection and not self.relies_on(avoided):
            self._collection = newest
        self._beat += 1
        await self._create_beat()

    async def beat_forever(self, interval: float | None = None) -> None:
        """Beats until cancelled, each ``BEAT_SECONDS`` unless told otherwise. Only ``Fenced`` gets out: a beat that fails otherwise is tried again at the next."""
        while True:
            await asyncio.sleep(BEAT_SECONDS if interval is None else interval)
            try:
                await self.beat()
            except Fenced:
                raise
            except DestinationError:
                continue

    async def end(self, outcome: str, commit: bytes | None = None) -> None:
        """Decides how the session ended; with ``committed``, creates the commit's copy under ``snapshots/`` too.

        A commit is preceded by one more beat: a clone that has beaten since it was made meets the other one there. And it counts only if the
        first beat is still there after it: the objects of a session that was fenced long ago are gone, and then its end could be created anew.

        Raises:
            Fenced: somebody else has decided already. DestinationError: as the destination raises it.
        """
        if commit is not None:
            await self.beat()
        key = names.session_end(self._id)
        sealed = None if commit is None else objects.pack_commit(commit)
        described = objects.EndObject(self._id, outcome, objects.now(), sealed, self._beat, self._brings)  # type: ignore[arg-type]
        await self._create(key, self._keyring.seal("end", key, objects.encode(described)))
        if commit is not None:
            if not await is_there(self._destination, names.beat(self._id, 0)):
                raise Fenced(f"{self._destination.name}: session {self._id} was given up and tidied away by a prune; run the export again")
            await create_checked(self._destination, names.snapshot(self._brings or self._id), commit)
            self.bytes_sent += len(commit)

    async def _create_beat(self) -> None:
        parent = self._parent
        described = objects.SessionObject(
            session=self._id,
            beat=self._beat,
            volume=self._volume,
            at=objects.now(),
            nonce=secrets.token_hex(16),
            parent=objects.pin_object(parent) if parent else None,
            collection=self._collection,
        )
        key = names.beat(self._id, self._beat)
        await self._create(key, self._keyring.seal("session", key, objects.encode(described)))

    async def _create(self, key: str, data: bytes) -> None:
        await _create_or_fenced(self._destination, key, data)
        self.bytes_sent += len(data)

    async def _parent_there(self) -> bool:
        if self._parent is None:
            return False
        try:
            return await read_commit(self._keyring, self._destination, self._parent.id) == self._parent
        except (ObjectNotFound, ObjectDamaged):
            return False


@contextlib.asynccontextmanager
async def beating(
    sessions: Mapping[str, Session], interval: float | None = None, on_fenced: Callable[[str, Fenced], object] | None = None
) -> AsyncIterator[None]:
    """Signs of life of ``sessions`` while the block runs. One that is fenced beats no more, which is told by its name; its end finds out too."""

    async def beat(name: str, session: Session) -> None:
        try:
            await session.beat_forever(interval)
        except Fenced as error:
            if on_fenced is not None:
                on_fenced(name, error)

    beats = [asyncio.create_task(beat(name, session)) for name, session in sessions.items()]
    try:
        yield
    finally:
        for task in beats:
            task.cancel()
        await asyncio.gather(*beats, return_exceptions=True)


@contextlib.asynccontextmanager
async def abandoned_on_error(sessions: Iterable[Session]) -> AsyncIterator[None]:
    """Whatever gets out of the block, a cancellation too, ends those of the ``sessions`` that have begun by then."""
    try:
        yield
    except BaseException:
        await abandon(sessions)
        raise


async def abandon(sessions: Iterable[Session]) -> None:
    """Says, where that is still possible, that nothing comes any more. Only a courtesy: a session without a beat is ended by others."""

    async def one(session: Session) -> None:
        with contextlib.suppress(Exception):
            await session.end("abandoned")

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ABANDON_SECONDS):
            await together(one(session) for session in sessions if session.begun)


async def fence(keyring: _core.Keyring, destination: Destination, session_id: str) -> None:
    """Ends somebody's session that has gone silent, unless it has ended by itself."""
    key = names.session_end(session_id)
    described = objects.EndObject(session_id, "fenced", objects.now())
    await destination.create(key, keyring.seal("end", key, objects.encode(described)))


async def finish_commits(
    keyring: _core.Keyring,
    destination: Destination,
    on_damage: Callable[[str, str], object] | None = None,
    *,
    notes_read: bool = False,
) -> list[str]:
    """Creates the copies under ``snapshots/`` that killed writers did not come to; returns the ids of those snapshots.

    An end counts only while the first beat of its session is there (see ``Session.end``).

    Arguments:
        on_damage: called with the key and the reason for an end that cannot be read.
        notes_read: a note under ``forgotten/`` counts only if it is this repository's, so each is read. Else one of another's keeps a copy
            from being created until somebody reads it.
    """
    ended: set[str] = set()
    async for info in destination.list(names.SESSIONS):
        parsed = names.parse_session(info.key)
        if parsed and parsed[1] == names.END:
            ended.add(parsed[0])
    if not ended:
        return []
    copied = names.ids_below(names.SNAPSHOTS, await list_keys(destination, names.SNAPSHOTS))
    noted = names.ids_below(names.FORGOTTEN, await list_keys(destination, names.FORGOTTEN))
    gone = await good_notes(keyring, destination, noted & ended - copied) if notes_read else noted
    finished = []
    for session_id in sorted(ended - copied - gone):
        key = names.session_end(session_id)
        try:
            payload = await read_object(keyring, destination, "end", key, objects.END_LIMIT)
            decided = decided_commit(keyring, payload, session_id, destination.name)
        except (ObjectDamaged, ObjectNotFound) as error:
            if on_damage is not None:
                on_damage(key, str(error))
            continue
        if decided is None or decided.snapshot in copied | gone:
            continue
        if decided.snapshot in noted and await good_notes(keyring, destination, {decided.snapshot}):
            continue
        if await is_there(destination, names.beat(session_id, 0)):
            await create_checked(destination, names.snapshot(decided.snapshot), decided.sealed)
            finished.append(decided.snapshot)
    return finished


class Decided(NamedTuple):
    """What a session ended with: the snapshot's id, its whole commit object, and what that says."""

    snapshot: str
    sealed: bytes
    commit: Snapshot


def decided_commit(keyring: _core.Keyring, payload: bytes, session_id: str, where: str) -> Decided | None:
    """The commit in the payload of a session's end, checked; None if the session ended without one. ``ObjectDamaged`` if it makes no sense."""
    end = objects.decode(objects.EndObject, payload, names.session_end(session_id))
    if end.session != session_id or end.outcome != "committed" or end.commit is None:
        return None
    snapshot = end.snapshot or session_id
    sealed = objects.unpack_commit(end.commit, names.session_end(session_id))
    commit = objects.parse_commit(open_object(keyring, "commit", names.snapshot(snapshot), sealed, where), snapshot)
    return Decided(snapshot, sealed, commit)


async def create_checked(destination: Destination, key: str, data: bytes) -> None:
    """Creates an object whose name can hold only these bytes. One that is there is compared; a broken one is replaced.

    Only what does not end in its own hash is ever replaced: that is torn or altered, and no longer anybody's object.
    """
    if await destination.create(key, data):
        return
    try:
        present: bytes | None = await destination.read(key, max(len(data), objects.SMALL_OBJECT_LIMIT))
    except (ObjectDamaged, ObjectNotFound):
        present = None
    if present == data:
        return
    if present is not None and _intact(present):
        raise ObjectDamaged(f"{key} holds another object in good order, which is left as it is", destination.name)
    await destination.delete(key)
    if not await destination.create(key, data) and await destination.read(key, len(data)) != data:
        raise ObjectDamaged(f"{key} holds other bytes and cannot be replaced", destination.name)


def _intact(data: bytes) -> bool:
    try:
        _core.check_object(data)
    except _core.CoreError:
        return False
    return True


async def _create_or_fenced(destination: Destination, key: str, data: bytes) -> None:
    """Creates, or finds that an earlier try of ours whose reply was lost has; anybody else's bytes fence this session."""
    if await destination.create(key, data):
        return
    try:
        present = await destination.read(key, objects.END_LIMIT)
    except (ObjectNotFound, ObjectDamaged):
        present = b""
    if present != data:
        raise Fenced(
            f"{destination.name}: session {key.split('/')[1]} was ended or taken over by somebody else ({key} is not ours); run the export again"
        )


async def is_committed(destination: Destination, snapshot_id: str, commit: bytes) -> bool:
    """Whether this very commit is there: another host that found the snapshot elsewhere may have brought it while its writer was about to."""
    try:
        return await destination.read(names.snapshot(snapshot_id), objects.COMMIT_LIMIT) == commit
    except DestinationError:
        return False
