"""Which snapshots there are, on which destinations, and what a user's name for one means.

A commit counts once it opens with the repository's key. A copy that does not is damage; a snapshot without any good copy is unknown.
A destination's ``forgotten/<id>`` note wins over its ``snapshots/<id>``: there the snapshot does not exist.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound, SnapshotNotFound
from snapferry.repository import names, objects
from snapferry.repository.gathering import together
from snapferry.repository.small import read_from_any, read_object
from snapferry.types import Damage, ListedSnapshot, Snapshot

VOLUME_NAME = re.compile(r"[A-Za-z0-9._/-]+")
_ID_PREFIX = re.compile(r"[0-9a-f]{8,32}")
_BACK = re.compile(r"(?P<volume>[A-Za-z0-9._/-]+)~(?P<back>[0-9]{1,9})")
_DATED = re.compile(r"(?P<volume>[A-Za-z0-9._/-]+)@(?P<time>.+)")
_AT_ONCE = 64


@dataclass(slots=True)
class Listing:
    """The snapshots of a repository, as its reachable destinations list them.

    Attributes:
        snapshots: by id, those with at least one good commit; ``destinations`` are those that list the commit.
        broken: by id, commits of which no copy is in good order, and why.
        held: by destination, the ids it lists.
        forgotten: by destination, the ids it has a note for.
        damage: bad copies of commits, and bad notes.
        failures: destinations that could not be listed.
    """

    snapshots: dict[str, ListedSnapshot] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    held: dict[str, set[str]] = field(default_factory=dict)
    forgotten: dict[str, set[str]] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    failures: dict[str, DestinationError] = field(default_factory=dict)

    def of_volume(self, volume: str) -> list[ListedSnapshot]:
        """The volume's snapshots, oldest first: by generation, ties by id."""
        return ordered(item for item in self.snapshots.values() if item.snapshot.volume == volume)

    def volumes(self) -> list[str]:
        """The names of all volumes, in order."""
        return sorted({item.snapshot.volume for item in self.snapshots.values()})

    def resolve(self, reference: str) -> ListedSnapshot:
        """The snapshot that ``reference`` means.

        A volume (its latest), ``volume~N`` (N before it), ``volume@2026-11-22T10:00`` (the latest at that time, UTC unless it says otherwise),
        or 8 or more digits of an id.

        Raises:
            SnapshotNotFound: there is none, or more than one.
        """
        back = _BACK.fullmatch(reference)
        volume, steps = (back["volume"], int(back["back"])) if back else (reference, 0)
        series = self.of_volume(volume)
        if series:
            if steps < len(series):
                return series[-1 - steps]
            raise SnapshotNotFound(f"volume {volume} has {len(series)} snapshots; there is no {reference}")
        dated = _DATED.fullmatch(reference)
        if dated and (series := self.of_volume(dated["volume"])):
            return _latest_at(series, dated["time"])
        if _ID_PREFIX.fullmatch(reference):
            found = [item for item in self.snapshots.values() if item.snapshot.id.startswith(reference)]
            if len(found) == 1:
                return found[0]
            if found:
                ids = ", ".join(sorted(item.snapshot.id for item in found)[:5])
                raise SnapshotNotFound(
                    f"{reference} is ambiguous: {len(found)} snapshots begin with it ({ids}{', …' if len(found) > 5 else ''})"
                )
            broken = [f"snapshots/{key}: {reason}" for key, reason in self.broken.items() if key.startswith(reference)]
            if broken:
                raise SnapshotNotFound(
                    f"no snapshot {reference} can be used: its commit is damaged on every destination that has it: {'; '.join(broken)}"
                )
        raise SnapshotNotFound(f"no snapshot or volume is called {reference!r}{self._hint(reference)}")

    def _hint(self, reference: str) -> str:
        close = difflib.get_close_matches(reference, self.volumes(), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        if self.broken:
            hint += f" ({len(self.broken)} damaged commits were passed over: {'; '.join(f'snapshots/{key}: {why}' for key, why in sorted(self.broken.items())[:5])})"
        if self.failures:
            hint += f" (not asked, because they failed: {', '.join(self.failures)})"
        return hint


def _latest_at(series: list[ListedSnapshot], text: str) -> ListedSnapshot:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SnapshotNotFound(f"{text!r} is no time such as 2026-11-22T10:00") from None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    before = [item for item in series if item.snapshot.created <= time]
    if not before:
        volume, first = series[0].snapshot.volume, min(item.snapshot.created for item in series)
        raise SnapshotNotFound(f"volume {volume} has no snapshot from {text} or before; its first is from {first:%Y-%m-%dT%H:%M:%SZ}")
    return before[-1]


def ordered(snapshots: Iterable[ListedSnapshot]) -> list[ListedSnapshot]:
    """By generation, ties by id."""
    return sorted(snapshots, key=lambda item: (item.snapshot.generation, item.snapshot.id))


async def list_snapshots(keyring: _core.Keyring, replicas: Mapping[str, Destination]) -> Listing:
    """Lists the commits of all ``replicas`` side by side and opens one good copy of each."""
    listing = Listing()
    found = await together(_ids(destination) for destination in replicas.values())
    for name, result in zip(replicas, found, strict=True):
        if isinstance(result, DestinationError):
            listing.failures[name] = result
        else:
            listing.held[name], noted = result
            listing.forgotten[name] = set()
            for snapshot_id in noted:
                await _look_at_note(keyring, replicas[name], snapshot_id, listing)
    holders: dict[str, list[str]] = {}
    for name, held in listing.held.items():
        held -= listing.forgotten[name]
        for snapshot_id in held:
            holders.setdefault(snapshot_id, []).append(name)
    everything = sorted(holders)
    for start in range(0, len(everything), _AT_ONCE):
        chunk = everything[start : start + _AT_ONCE]
        await together(_read_one(keyring, replicas, snapshot_id, holders[snapshot_id], listing) for snapshot_id in chunk)
    return listing


async def read_commit(keyring: _core.Keyring, destination: Destination, snapshot_id: str) -> Snapshot:
    """The commit at one destination; ``ObjectNotFound``, ``ObjectDamaged`` or another ``DestinationError``."""
    payload = await read_object(keyring, destination, "commit", names.snapshot(snapshot_id), objects.COMMIT_LIMIT)
    return objects.parse_commit(payload, snapshot_id)


async def _ids(destination: Destination) -> tuple[set[str], set[str]] | DestinationError:
    try:
        held = {names.parse_snapshot(info.key) async for info in destination.list(names.SNAPSHOTS)}
        noted = {names.parse_forgotten(info.key) async for info in destination.list(names.FORGOTTEN)}
    except DestinationError as error:
        return error
    return {item for item in held if item}, {item for item in noted if item}


async def _look_at_note(keyring: _core.Keyring, destination: Destination, snapshot_id: str, listing: Listing) -> None:
    """A note counts only if it is this repository's: anybody else's would hide a snapshot."""
    key = names.forgotten(snapshot_id)
    try:
        await read_object(keyring, destination, "forgotten", key)
    except DestinationError as error:
        listing.damage.append(Damage(destination.name, key, str(error), snapshot_id))
    else:
        listing.forgotten[destination.name].add(snapshot_id)


async def _read_one(
    keyring: _core.Keyring, replicas: Mapping[str, Destination], snapshot_id: str, holders: list[str], listing: Listing
) -> None:
    key = names.snapshot(snapshot_id)
    try:
        payload, failures = await read_from_any(keyring, {name: replicas[name] for name in holders}, "commit", key, objects.COMMIT_LIMIT)
        snapshot = objects.parse_commit(payload, snapshot_id)
    except DestinationError as error:
        listing.broken[snapshot_id] = str(error)
        if isinstance(error, ObjectDamaged):
            listing.damage += [Damage(name, key, str(error), snapshot_id) for name in holders]
        return
    listing.snapshots[snapshot_id] = ListedSnapshot(
        snapshot, tuple(name for name in holders if not isinstance(failures.get(name), ObjectNotFound))
    )
    listing.damage += [Damage(name, key, str(error), snapshot_id) for name, error in failures.items() if isinstance(error, ObjectDamaged)]
