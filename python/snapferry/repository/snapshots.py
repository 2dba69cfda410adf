"""Which snapshots there are, on which destinations: by all of their commits.

A commit counts once it opens with the repository's key. A copy that does not is damage; a snapshot without any good copy is unknown.
A destination's ``forgotten/<id>`` note wins over its ``snapshots/<id>``: there the snapshot does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from snapferry import _core
from snapferry.destination import Destination, list_keys
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.repository import names, objects
from snapferry.repository.gathering import together
from snapferry.repository.references import resolve
from snapferry.repository.small import read_object
from snapferry.types import Damage, ListedSnapshot, Snapshot

VOLUME_NAME = re.compile(r"[A-Za-z0-9._/-]+")
AT_ONCE = 64
"""Small objects that are read side by side."""


@dataclass(slots=True)
class Names:
    """What destinations list, unread: the ids of commits (``held``) and of notes (``noted``) by destination; and those that failed."""

    held: dict[str, set[str]] = field(default_factory=dict)
    noted: dict[str, set[str]] = field(default_factory=dict)
    failures: dict[str, DestinationError] = field(default_factory=dict)


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

    def newest_first(self, volume: str) -> Iterator[Snapshot]:
        """The volume's snapshots, the latest first."""
        return (item.snapshot for item in reversed(self.of_volume(volume)))

    def beginning_with(self, prefix: str) -> list[str]:
        """The ids that begin so."""
        return [key for key in self.snapshots if key.startswith(prefix)]

    def resolve(self, reference: str) -> ListedSnapshot:
        """The snapshot that ``reference`` means; see ``references.resolve``."""
        return self.snapshots[resolve(reference, self)]


def ordered(snapshots: Iterable[ListedSnapshot]) -> list[ListedSnapshot]:
    """By generation, ties by id."""
    return sorted(snapshots, key=lambda item: (item.snapshot.generation, item.snapshot.id))


async def list_snapshots(keyring: _core.Keyring, replicas: Mapping[str, Destination]) -> Listing:
    """Lists the commits of all ``replicas`` side by side and opens one good copy of each."""
    found = await list_names(replicas)
    listing = Listing(held=found.held, failures=found.failures)
    listing.forgotten, listing.damage = await read_notes(keyring, replicas, found.noted)
    holders: dict[str, list[str]] = {}
    for name, held in listing.held.items():
        held -= listing.forgotten[name]
        for snapshot_id in held:
            holders.setdefault(snapshot_id, []).append(name)
    everything = sorted(holders)
    for start in range(0, len(everything), AT_ONCE):
        chunk = everything[start : start + AT_ONCE]
        await together(_add(keyring, replicas, snapshot_id, holders[snapshot_id], listing) for snapshot_id in chunk)
    return listing


async def list_names(replicas: Mapping[str, Destination]) -> Names:
    """Lists commits, then notes, at all ``replicas`` side by side."""
    listed = Names()
    for name, result in zip(replicas, await together(_ids(destination) for destination in replicas.values()), strict=True):
        if isinstance(result, DestinationError):
            listed.failures[name] = result
        else:
            listed.held[name], listed.noted[name] = result
    return listed


async def read_notes(
    keyring: _core.Keyring, replicas: Mapping[str, Destination], noted: Mapping[str, AbstractSet[str]]
) -> tuple[dict[str, set[str]], list[Damage]]:
    """Those of the notes (ids by destination) that are this repository's, since anybody else's would hide a snapshot; such are damage."""
    good: dict[str, set[str]] = {name: set() for name in noted}
    damage: list[Damage] = []

    async def look(name: str, snapshot_id: str) -> None:
        key = names.forgotten(snapshot_id)
        try:
            await read_object(keyring, replicas[name], "forgotten", key)
            good[name].add(snapshot_id)
        except ObjectDamaged as error:
            damage.append(Damage(name, key, str(error), snapshot_id))
        except DestinationError:
            return  # It is not there, or not to be told: then the snapshot stays.

    everything = [(name, snapshot_id) for name, ids in noted.items() for snapshot_id in sorted(ids)]
    for start in range(0, len(everything), AT_ONCE):
        await together(look(name, snapshot_id) for name, snapshot_id in everything[start : start + AT_ONCE])
    return good, damage


async def read_commit(keyring: _core.Keyring, destination: Destination, snapshot_id: str) -> Snapshot:
    """The commit at one destination; ``ObjectNotFound``, ``ObjectDamaged`` or another ``DestinationError``."""
    payload = await read_object(keyring, destination, "commit", names.snapshot(snapshot_id), objects.COMMIT_LIMIT)
    return objects.parse_commit(payload, snapshot_id)


async def read_first_good(
    keyring: _core.Keyring, replicas: Mapping[str, Destination], snapshot_id: str, holders: Sequence[str]
) -> tuple[Snapshot | None, dict[str, DestinationError]]:
    """The commit from the first of ``holders`` that has it in good order, and what went wrong at those before it."""
    failures: dict[str, DestinationError] = {}
    for name in holders:
        try:
            return await read_commit(keyring, replicas[name], snapshot_id), failures
        except DestinationError as error:
            failures[name] = error
    return None, failures


def bad_copies(snapshot_id: str, failures: Mapping[str, DestinationError]) -> list[Damage]:
    """Those of ``failures`` by destination that say something of the commit there."""
    return [
        Damage(name, names.snapshot(snapshot_id), str(error), snapshot_id)
        for name, error in failures.items()
        if isinstance(error, ObjectDamaged)
    ]


def why_broken(failures: Mapping[str, DestinationError]) -> str:
    """What is to be said of a commit that nobody has in good order: damage rather than an absence."""
    return str(min(failures.values(), key=_rank, default=DestinationError("no destination has it")))


async def _ids(destination: Destination) -> tuple[set[str], set[str]] | DestinationError:
    try:
        held = names.ids_below(names.SNAPSHOTS, await list_keys(destination, names.SNAPSHOTS))
        return held, names.ids_below(names.FORGOTTEN, await list_keys(destination, names.FORGOTTEN))
    except DestinationError as error:
        return error


async def _add(keyring: _core.Keyring, replicas: Mapping[str, Destination], snapshot_id: str, holders: list[str], listing: Listing) -> None:
    snapshot, failures = await read_first_good(keyring, replicas, snapshot_id, holders)
    listing.damage += bad_copies(snapshot_id, failures)
    if snapshot is None:
        listing.broken[snapshot_id] = why_broken(failures)
    else:
        kept = tuple(name for name in holders if not isinstance(failures.get(name), ObjectNotFound))
        listing.snapshots[snapshot_id] = ListedSnapshot(snapshot, kept)


def _rank(error: DestinationError) -> int:
    return 0 if isinstance(error, ObjectDamaged) else 2 if isinstance(error, ObjectNotFound) else 1
