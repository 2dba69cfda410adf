"""Finding snapshots for the facade: by listing names and asking the catalog, or, by a full id, by that one commit alone."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound, SnapshotNotFound
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.references import FULL_ID, resolve
from snapferry.repository.snapshots import bad_copies, list_names, read_commit, read_notes
from snapferry.repository.survey import Survey, take_survey
from snapferry.types import Damage, ListedSnapshot, ListedSummary, Snapshot

logger = logging.getLogger("snapferry")


async def survey(membership: Membership, memory: Memory, replicas: Mapping[str, Destination]) -> tuple[Survey, list[Damage]]:
    """What ``replicas`` hold, which is remembered; and what was seen there before and is gone without a note."""
    recalled = await memory.recall()
    listed = await list_names(replicas)
    found = await take_survey(membership.members.keyring, replicas, listed, recalled.summaries, recalled.seen)
    return found, await memory.note_survey(found, recalled.seen)


class Finder:
    """Finds snapshots at all destinations that can be read, and says what is wrong there."""

    def __init__(self, membership: Membership, memory: Memory) -> None:
        self._membership = membership
        self._memory = memory

    async def listed(self, volume: str | None) -> list[ListedSummary]:
        """The snapshots; see ``Repository.list``."""
        found = await self.survey()
        listed = found.listed(volume)
        if not listed and volume is not None and found.volumes():
            resolve(volume, found)  # Says what is near it.
            raise SnapshotNotFound(f"no volume is called {volume!r}")
        return listed

    async def find(self, *references: str) -> list[ListedSnapshot]:
        """The snapshots that all destinations together know by these names.

        Raises:
            SnapshotNotFound: there is none, or more than one. DestinationError: its commit cannot be read now.
        """
        found = [await self._by_id(reference) if FULL_ID.fullmatch(reference) else None for reference in references]
        if None not in found:
            return [item for item in found if item is not None]
        known = await self.survey()
        keyring, replicas = self._membership.members.keyring, self._membership.replicas
        before = len(known.damage)
        try:
            return [item or await known.find(keyring, replicas, reference) for item, reference in zip(found, references, strict=True)]
        finally:
            await self._say(known.damage[before:])

    async def survey(self) -> Survey:
        """What all destinations that can be read hold; what is wrong there is said. ``DestinationError`` if none can be listed."""
        replicas = self._membership.replicas
        found, gone = await survey(self._membership, self._memory, replicas)
        if len(found.failures) == len(replicas):
            raise combined("no destination can be listed", found.failures)
        await self._say(found.damage, gone, found.failures.values())
        for snapshot_id, error in found.unread.items():
            logger.warning("snapshots/%s cannot be read now, and was passed over: %s", snapshot_id, error)
        return found

    async def _by_id(self, snapshot_id: str) -> ListedSnapshot | None:
        """The snapshot of that id, by the commits and notes of that name alone, however many others there are.

        None where that does not settle it: a volume is called so, or no destination has it in good order.
        """
        if await self._memory.generation(snapshot_id):
            return None
        keyring, replicas = self._membership.members.keyring, self._membership.replicas

        async def look(destination: Destination) -> Snapshot | DestinationError:
            try:
                return await read_commit(keyring, destination, snapshot_id)
            except DestinationError as error:
                return error

        found = dict(zip(replicas, await together(look(destination) for destination in replicas.values()), strict=True))
        # After the commits: a note is made before its commit is removed.
        notes, damage = await read_notes(keyring, replicas, {name: {snapshot_id} for name in replicas})
        failures = {name: result for name, result in found.items() if isinstance(result, DestinationError)}
        snapshots = {name: result for name, result in found.items() if isinstance(result, Snapshot) and not notes[name]}
        if not snapshots:
            return None
        damage += bad_copies(snapshot_id, failures)
        snapshot = next(iter(snapshots.values()))
        torn = [name for name, error in failures.items() if isinstance(error, ObjectDamaged) and not notes[name]]
        holders = tuple(name for name in found if name in snapshots or name in torn)
        absent = [name for name, error in failures.items() if isinstance(error, ObjectNotFound) and not notes[name]]
        silent = [error for error in failures.values() if not isinstance(error, (ObjectDamaged, ObjectNotFound))]
        await self._say(damage, await self._memory.note_found(snapshot, holders, absent), silent)
        return ListedSnapshot(snapshot, holders)

    async def _say(self, damage: Sequence[Damage], gone: Sequence[Damage] = (), failures: Iterable[DestinationError] = ()) -> None:
        """Warns of all of it, and remembers the damage."""
        for item in (*damage, *gone):
            logger.warning("%s: %s: %s", item.destination, item.object, item.reason)
        for error in failures:
            logger.warning("%s", error)
        await self._memory.note_damage(damage)
