"""What is to be done about what a verification found, object by object. Pure: findings in, tasks out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from snapferry.repository import names
from snapferry.types import Damage


@dataclass(frozen=True, slots=True)
class Tasks:
    """What is broken or missing at one destination, by what heals it.

    Attributes:
        doors: ``config`` and ``destination``: without them nothing else is done there.
        slots: key slots, by any of which all are looked at.
        commits, notes: ids of snapshots. sessions: ids. packs: ids of 32 bytes. segments: ids in hex.
        index: packs are named by no segment.
        other: keys of objects that nothing heals.
    """

    doors: frozenset[str] = frozenset()
    slots: frozenset[str] = frozenset()
    commits: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    notes: frozenset[str] = frozenset()
    packs: frozenset[bytes] = frozenset()
    segments: frozenset[str] = frozenset()
    index: bool = False
    other: frozenset[str] = field(default=frozenset())


def tasks_of(damage: Iterable[Damage]) -> dict[str, Tasks]:
    """By destination, what its findings ask for. Each object is in exactly one task."""
    keys: dict[str, set[str]] = {}
    for item in damage:
        keys.setdefault(item.destination, set()).add(item.object)
    return {name: _tasks(found) for name, found in keys.items()}


def _tasks(keys: set[str]) -> Tasks:
    doors = keys & {names.CONFIG, names.DESTINATION}
    slots = {key for key in keys if key.startswith(names.KEYS)}
    commits = {key: snapshot for key in keys if (snapshot := names.parse_snapshot(key))}
    sessions = {key: parsed[0] for key in keys if (parsed := names.parse_session(key))}
    notes = {key: snapshot for key in keys if (snapshot := names.parse_forgotten(key))}
    packs = {key: pack for key in keys if (pack := names.parse_pack(key))}
    segments = {key: segment for key in keys if (segment := names.parse_segment(key))}
    index = {names.INDEX} & keys
    known = doors | slots | commits.keys() | sessions.keys() | notes.keys() | packs.keys() | segments.keys() | index
    return Tasks(
        doors=frozenset(doors),
        slots=frozenset(slots),
        commits=frozenset(commits.values()),
        sessions=frozenset(sessions.values()),
        notes=frozenset(notes.values()),
        packs=frozenset(packs.values()),
        segments=frozenset(segments.values()),
        index=bool(index),
        other=frozenset(keys - known),
    )


def could_heal(item: Damage) -> bool:
    """Whether there is something to heal it with: the same object elsewhere, or, where each place has its own, what it can be made of."""
    if names.parse_pack(item.object) or names.parse_snapshot(item.object):
        return bool(item.whole_at)
    return not names.parse_forgotten(item.object)


def came_of(before: Iterable[Damage], after: Iterable[Damage]) -> tuple[tuple[Damage, ...], tuple[Damage, ...]]:
    """(healed, left): what was found at first and is not any more, and all that is found now."""
    left = tuple(after)
    still = {(item.destination, item.object) for item in left}
    return tuple(item for item in before if (item.destination, item.object) not in still), left
