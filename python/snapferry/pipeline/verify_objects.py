"""The small objects of one destination, each by its own hash and the key; and what must be there because of what else is."""

from __future__ import annotations

from dataclasses import dataclass, field

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.repository import names, objects
from snapferry.repository.index_cache import SEGMENT_LIMIT, open_segment
from snapferry.repository.opening import read_slots
from snapferry.repository.slots import parse_slots
from snapferry.repository.small import open_object
from snapferry.repository.threads import Threads
from snapferry.types import Damage


@dataclass(slots=True)
class ObjectsFound:
    """What was found: damage, and the ids of the index segments in good order."""

    damage: list[Damage] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)


class _Look:
    def __init__(self, keyring: _core.Keyring, destination: Destination, threads: Threads) -> None:
        self.keyring = keyring
        self.destination = destination
        self.threads = threads
        self.found = ObjectsFound()

    def bad(self, key: str, reason: str, snapshot: str | None = None) -> None:
        self.found.damage.append(Damage(self.destination.name, key, reason, snapshot))

    async def open(self, kind: str, key: str, limit: int = objects.SMALL_OBJECT_LIMIT) -> bytes | None:
        try:
            return open_object(self.keyring, kind, key, await self.destination.read(key, limit), self.destination.name)
        except ObjectNotFound:
            self.bad(key, "missing")
        except ObjectDamaged as error:
            self.bad(key, str(error))
        return None

    async def keys(self, prefix: str) -> list[str]:
        return sorted([info.key async for info in self.destination.list(prefix)])


async def verify_objects(keyring: _core.Keyring, destination: Destination, threads: Threads) -> ObjectsFound:
    """Reads every small object of one destination. Raises ``DestinationError`` only where the destination itself fails."""
    look = _Look(keyring, destination, threads)
    await look.open("destination", names.DESTINATION)
    await look.open("config", names.CONFIG)
    await _slots(look)
    await _segments(look)
    await _sessions_and_commits(look)
    return look.found


async def _slots(look: _Look) -> None:
    found, unread = await read_slots(look.destination)
    keys = parse_slots({look.destination.name: found}, look.keyring.repository_id.hex(), unread)
    look.found.damage += keys.damage
    if not keys.full_slots():
        look.bad(names.KEYS, "no full key slot is there: nobody can restore with this destination alone")


async def _segments(look: _Look) -> None:
    for key in await look.keys(names.INDEX):
        segment = names.parse_segment(key)
        if segment is None:
            continue
        try:
            data = await look.destination.read(key, SEGMENT_LIMIT)
            await look.threads.run(open_segment, look.keyring, segment, data, look.destination.name)
        except (ObjectDamaged, ObjectNotFound) as error:
            look.bad(key, str(error))
        else:
            look.found.segments.append(segment)


async def _sessions_and_commits(look: _Look) -> None:
    missing, ended, committed = await _sessions(look)
    commits = [snapshot for key in await look.keys(names.SNAPSHOTS) if (snapshot := names.parse_snapshot(key))]
    notes = [snapshot for key in await look.keys(names.FORGOTTEN) if (snapshot := names.parse_forgotten(key))]
    for snapshot in commits:
        await _commit(look, snapshot)
    let_go = [snapshot for snapshot in notes if await look.open("forgotten", names.forgotten(snapshot)) is not None]
    for session in sorted(committed.difference(commits, let_go)):
        look.bad(names.snapshot(session), "missing, though its session ended with this commit; the next export puts it back", session)
    if await look.keys(names.COLLECT):
        return  # Collections remove the objects of ended sessions; before the first, each commit's are all there.
    for snapshot in commits:
        if snapshot not in ended:
            look.bad(names.session_end(snapshot), "missing, though its commit is there", snapshot)
            missing.setdefault(snapshot, {0})
    for session, numbers in sorted(missing.items()):
        for number in sorted(numbers):
            look.bad(names.beat(session, number), "missing")


async def _sessions(look: _Look) -> tuple[dict[str, set[int]], set[str], set[str]]:
    """By session the beats that are missing; the sessions that have an end; and those that ended with a commit."""
    beats: dict[str, set[int]] = {}
    last: dict[str, int] = {}
    ended: set[str] = set()
    committed: set[str] = set()
    for key in await look.keys(names.SESSIONS):
        parsed = names.parse_session(key)
        if parsed is None:
            continue
        session, part = parsed
        beats.setdefault(session, set())
        if part != names.END:
            beats[session].add(int(part))
            await look.open("session", key)
            continue
        ended.add(session)
        payload = await look.open("end", key, objects.END_LIMIT)
        end = None if payload is None else _end(payload, session)
        if end is not None:
            last[session] = end.beat
            ended.add(end.snapshot or session)
            if end.outcome == "committed":
                committed.add(end.snapshot or session)
    missing = {session: set(range(max([*seen, last.get(session, 0)]) + 1)) - seen for session, seen in beats.items()}
    return missing, ended, committed


async def _commit(look: _Look, snapshot: str) -> None:
    payload = await look.open("commit", names.snapshot(snapshot), objects.COMMIT_LIMIT)
    if payload is not None:
        try:
            objects.parse_commit(payload, snapshot)
        except ObjectDamaged as error:
            look.bad(names.snapshot(snapshot), str(error), snapshot)


def _end(payload: bytes, session: str) -> objects.EndObject | None:
    try:
        return objects.decode(objects.EndObject, payload, names.session_end(session))
    except ObjectDamaged:
        return None
