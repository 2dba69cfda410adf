"""What keeps packs alive at one destination: commits, and the pins of sessions that have not ended. Listed in the order the protocol asks for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.placement import described
from snapferry.repository import names, objects
from snapferry.repository.gathering import together
from snapferry.repository.notes import good_notes
from snapferry.repository.sessions import decided_commit
from snapferry.repository.small import read_object
from snapferry.repository.snapshots import read_commit
from snapferry.types import Roots, Snapshot

_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Tree:
    """The trees of one snapshot, and what it takes to walk them; ``snapshot`` is its id. ``in_parts``: some of its blocks may lie elsewhere only."""

    snapshot: str
    roots: Roots
    size: int
    block_size: int
    in_parts: bool = False

    @classmethod
    def of(cls, snapshot: Snapshot) -> Tree:
        """Of a commit."""
        return cls(snapshot.id, snapshot.roots, snapshot.size, snapshot.block_size, described(snapshot.placement).in_parts)

    @classmethod
    def pinned(cls, pin: objects.PinObject) -> Tree:
        """Of what a session builds on."""
        return cls(pin.snapshot, objects.pinned_roots(pin), pin.size, pin.block_size, described(pin.placement).in_parts)


@dataclass(slots=True)
class LiveSession:
    """A session that has not ended.

    Attributes:
        beat: number of its newest sign of life; ``at``: when it says that was, in seconds since the epoch by its own clock.
        accepted: the newest collection that it has accepted.
    """

    id: str
    volume: str
    beat: int
    at: float
    accepted: int


@dataclass(slots=True)
class Reached:
    """What was listed at one destination.

    Attributes:
        trees: of all commits that count, and of all pins.
        ended: by session that has ended, the keys of its objects, the first beat first and ``end`` last.
        made: by session that ended with a commit, the id of its snapshot, as far as that was looked at: only where it has no copy by the
            session's own id. uncommitted: those that ended without one. half_removed: those of these that somebody has begun to remove.
        live: the others.
        copies: ids below ``snapshots/``. notes: ids below ``forgotten/``, as far as it matters: of what is here or could come back, and
            only if the note is this repository's.
    """

    trees: frozenset[Tree] = frozenset()
    ended: dict[str, list[str]] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    uncommitted: frozenset[str] = frozenset()
    half_removed: frozenset[str] = frozenset()
    live: list[LiveSession] = field(default_factory=list)
    copies: frozenset[str] = frozenset()
    notes: frozenset[str] = frozenset()


async def list_reached(keyring: _core.Keyring, destination: Destination, known: frozenset[Tree] = frozenset()) -> Reached:
    """Lists snapshots, then sessions, then notes, and reads what is not ``known``.

    In this order: a session that ends between the two listings has its commit found by its end; a note that is seen last wins.

    Raises:
        ObjectDamaged: a commit or an end cannot be read, so that nobody can say what is needed. Other ``DestinationError``.
    """
    copies = {item async for info in destination.list(names.SNAPSHOTS) if (item := names.parse_snapshot(info.key))}
    sessions: dict[str, list[str]] = {}
    async for info in destination.list(names.SESSIONS):
        parsed = names.parse_session(info.key)
        if parsed:
            sessions.setdefault(parsed[0], []).append(parsed[1])
    noted = {item async for info in destination.list(names.FORGOTTEN) if (item := names.parse_forgotten(info.key))}
    notes = await good_notes(keyring, destination, noted & (copies | sessions.keys()))
    trees = {tree.snapshot: tree for tree in known}
    found: set[Tree] = set()
    made: dict[str, str] = {}
    uncommitted: set[str] = set()
    live: list[LiveSession] = []

    async def commit(snapshot: str) -> None:
        if snapshot in trees:
            found.add(trees[snapshot])
            return
        try:
            read = await read_commit(keyring, destination, snapshot)
        except ObjectNotFound:
            return  # Let go since it was listed.
        found.add(Tree.of(read))

    async def end(session: str) -> None:
        key = names.session_end(session)
        try:
            payload = await read_object(keyring, destination, "end", key, objects.END_LIMIT)
        except ObjectNotFound:
            return  # Removed by another collector since; its commit has its copy.
        decided = decided_commit(keyring, payload, session, destination.name)
        if decided is None:
            uncommitted.add(session)
            return
        made[session] = decided.snapshot
        if decided.snapshot in noted and await good_notes(keyring, destination, {decided.snapshot}):
            notes.add(decided.snapshot)
            return
        found.add(Tree.of(decided.commit))

    async def pin(session: str, newest: int) -> None:
        """What the newest beat pins: a parent that turned out to be gone is pinned no more."""
        try:
            beat = await _beat(keyring, destination, session, newest)
        except ObjectNotFound:
            return  # It has ended, and was tidied away, since it was listed.
        except ObjectDamaged:
            # It accepts nothing and was last heard of long ago; so it will have ended before anything is deleted, whatever it pinned.
            live.append(LiveSession(session, "", newest, 0.0, 0))
            return
        if beat.parent is not None:
            found.add(Tree.pinned(beat.parent))
        live.append(LiveSession(session, beat.volume, newest, beat.at.timestamp(), beat.collection))

    # Without its first beat a session is being tidied away, and nothing else of it counts.
    gone = {session for session, parts in sessions.items() if "0" not in parts}
    ended = {session: parts for session, parts in sessions.items() if names.END in parts or session in gone}
    uncommitted |= gone
    work: list[Callable[[], Coroutine[None, None, None]]] = [partial(commit, snapshot) for snapshot in sorted(copies - notes)]
    work += [partial(end, session) for session in sorted(ended.keys() - gone - copies - notes)]
    work += [partial(pin, session, max(map(int, parts))) for session, parts in sorted(sessions.items()) if session not in ended]
    for start in range(0, len(work), _AT_ONCE):
        await together(call() for call in work[start : start + _AT_ONCE])
    keys = {session: _keys(session, parts) for session, parts in ended.items()}
    return Reached(frozenset(found), keys, made, frozenset(uncommitted), frozenset(gone), live, frozenset(copies), frozenset(notes))


def _keys(session: str, parts: list[str]) -> list[str]:
    """The first beat first: without it the rest does not count. The end last: as long as it is there nobody can end the session otherwise."""
    beats = sorted(int(part) for part in parts if part != names.END)
    return [*(names.beat(session, number) for number in beats), names.session_end(session)]


async def _beat(keyring: _core.Keyring, destination: Destination, session: str, number: int) -> objects.SessionObject:
    key = names.beat(session, number)
    beat = objects.decode(objects.SessionObject, await read_object(keyring, destination, "session", key), key)
    if beat.session != session or beat.beat != number:
        raise ObjectDamaged(f"{key}: it is another session's", destination.name)
    return beat
