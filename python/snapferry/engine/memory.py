"""What the catalog is told, and asked. It is a cache: its trouble is a warning, never the end of a backup or a restore."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from snapferry.engine.membership import Membership
from snapferry.errors import CatalogError
from snapferry.repository import names, objects
from snapferry.repository.snapshots import Listing
from snapferry.types import Damage, Snapshot

if TYPE_CHECKING:
    from snapferry.catalog import Catalog, RecordedDamage

T = TypeVar("T")
logger = logging.getLogger("snapferry")


class Memory:
    """This machine's memory of one repository. Destinations are known by the ids that lie in them, so a renamed one is the same."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._catalog: Catalog | None = None
        self._broken = False
        self._lock = asyncio.Lock()

    @property
    def _repository(self) -> str:
        return self._membership.members.repository_id

    @property
    def _ids(self) -> dict[str, str]:
        return self._membership.members.ids

    async def note_listing(self, listing: Listing) -> list[Damage]:
        """Remembers what was listed; returns a finding for each snapshot that was seen at a destination and is gone without a note."""

        def note(catalog: Catalog) -> list[Damage]:
            from snapferry.catalog import KnownCommit

            commits = [KnownCommit(item.snapshot, objects.commit_payload(item.snapshot)) for item in listing.snapshots.values()]
            catalog.remember_commits(self._repository, commits)
            gone: list[Damage] = []
            for name, held in listing.held.items():
                if name not in self._ids:
                    continue
                for snapshot in sorted(catalog.seen(self._repository, self._ids[name]) - held - listing.forgotten.get(name, set())):
                    reason = (
                        "was seen here before and is gone without a note that it was let go: this destination was rolled back or lost it"
                    )
                    gone.append(Damage(name, names.snapshot(snapshot), reason, snapshot))
                catalog.remember_seen(self._repository, self._ids[name], held)
            return gone

        return await self._call(note, [])

    async def generation(self, volume: str) -> int:
        """The greatest generation of the volume that this machine has seen anywhere, at destinations that do not answer now too."""
        return await self._call(lambda catalog: catalog.generation(self._repository, volume), 0)

    async def note_snapshot(self, snapshot: Snapshot, destinations: Iterable[str]) -> None:
        """Remembers a snapshot that was just made, and who acknowledged it."""

        def note(catalog: Catalog) -> None:
            from snapferry.catalog import KnownCommit

            catalog.remember_commits(self._repository, [KnownCommit(snapshot, objects.commit_payload(snapshot))])
            for name in destinations:
                if name in self._ids:
                    catalog.remember_seen(self._repository, self._ids[name], [snapshot.id])

        await self._call(note, None)

    async def note_damage(self, damage: Iterable[Damage]) -> None:
        """Remembers what was found broken."""
        found: dict[str, list[tuple[str, str]]] = {}
        for item in damage:
            if item.destination in self._ids and item.object:
                found.setdefault(self._ids[item.destination], []).append((item.object, item.reason))

        def record(catalog: Catalog) -> None:
            for where, what in found.items():
                catalog.record_damage(self._repository, where, what)

        if found:
            await self._call(record, None)

    async def replace_damage(self, destinations: Iterable[str], damage: Iterable[Damage]) -> None:
        """After all of some destinations was read: what is broken there is this, and nothing else."""
        ids = [self._ids[name] for name in destinations if name in self._ids]

        def clear(catalog: Catalog) -> None:
            for where in ids:
                catalog.clear_damage(self._repository, where)

        await self._call(clear, None)
        await self.note_damage(damage)

    async def damage(self) -> list[Damage]:
        """What is known to be broken, by the destinations' names of today."""
        by_id = {identity: name for name, identity in self._ids.items()}
        nothing: tuple[RecordedDamage, ...] = ()
        recorded = await self._call(lambda catalog: catalog.damage(self._repository), nothing)
        return [Damage(by_id[item.destination], item.object, item.reason) for item in recorded if item.destination in by_id]

    async def bad_packs(self) -> dict[str, set[bytes]]:
        """Packs known to be broken, by the destinations' names of today."""
        bad: dict[str, set[bytes]] = {}
        for item in await self.damage():
            pack = names.parse_pack(item.object)
            if pack is not None:
                bad.setdefault(item.destination, set()).add(pack)
        return bad

    async def rebuild(self) -> None:
        """Empties the catalog of all that the destinations can tell again."""
        from snapferry.catalog import Catalog

        await self.close()
        self._broken = False
        url = self._membership.config.catalog_url(self._repository)
        self._catalog = await self._membership.tools.threads.run(Catalog.rebuild, url, self._repository)

    async def close(self) -> None:
        """Closes the catalog; remembers how fast the destinations were."""
        if self._catalog is not None:
            await self._note_speeds()
            catalog, self._catalog = self._catalog, None
            await self._membership.tools.threads.run(catalog.close)

    async def _note_speeds(self) -> None:
        from snapferry.catalog import ReplicaSpeed

        if self._membership.limits.rate is not None:
            return  # They were only as fast as they were allowed to be.
        states = self._membership.tools.board.states(self._ids)
        speeds = {
            self._ids[state.name]: ReplicaSpeed(state.first_byte, state.goodput)
            for state in states
            if state.first_byte is not None and state.goodput is not None
        }
        if speeds:
            await self._call(lambda catalog: catalog.remember_speeds(self._repository, speeds), None)

    async def _call(self, action: Callable[[Catalog], T], otherwise: T) -> T:
        if self._broken:
            return otherwise

        def run() -> T:
            if self._catalog is None:
                from snapferry.catalog import Catalog

                self._catalog = Catalog(self._membership.config.catalog_url(self._repository))
            return action(self._catalog)

        try:
            async with self._lock:
                return await self._membership.tools.threads.run(run)
        except CatalogError as error:
            self._broken = True
            logger.warning("%s", error)
            return otherwise
