"""What the catalog is told, and asked. It is a cache: its trouble is a warning, never the end of a backup or a restore."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from snapferry.engine.membership import Membership
from snapferry.engine.summary_cache import SummaryCache
from snapferry.errors import CatalogError
from snapferry.repository import names
from snapferry.repository.snapshots import Listing
from snapferry.repository.summaries import Summaries, by_age, summarize
from snapferry.repository.survey import Survey
from snapferry.transport import Measured
from snapferry.types import Damage, Snapshot, SnapshotSummary

if TYPE_CHECKING:
    from snapferry.catalog import Catalog, RecordedDamage, ReplicaSpeed

T = TypeVar("T")
logger = logging.getLogger("snapferry")


@dataclass(frozen=True, slots=True)
class Recalled:
    """Summaries of snapshots that were read before; by destination, the ids of those that were seen there."""

    summaries: Summaries
    seen: Mapping[str, AbstractSet[str]]


class Memory:
    """This machine's memory of one repository. Destinations are known by the ids that lie in them, so a renamed one is the same."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._catalog: Catalog | None = None
        self._broken = False
        self._recalled = False
        self._lock = asyncio.Lock()
        self._summaries = SummaryCache(membership.members)

    @property
    def _repository(self) -> str:
        return self._membership.members.repository_id

    @property
    def _ids(self) -> dict[str, str]:
        return self._membership.members.ids

    async def recall(self) -> Recalled:
        """What is known without asking a destination; nothing where the catalog cannot be used.

        To be asked before destinations are listed: what another export of this machine adds meanwhile would look as if it had gone from there.
        """

        def recall(catalog: Catalog) -> Recalled:
            seen = {name: catalog.seen(self._repository, where) for name, where in self._ids.items()}
            return Recalled(Summaries(self._summaries.load(catalog)), seen)

        return await self._call(recall, Recalled(Summaries(), {}))

    async def note_survey(self, survey: Survey, seen: Mapping[str, AbstractSet[str]]) -> list[Damage]:
        """Remembers what was found; returns a finding for each snapshot that was ``seen`` at a destination and is gone without a note."""

        def note(catalog: Catalog) -> None:
            self._keep(catalog, survey.fresh)
            if not survey.failures and not self._membership.members.failures:  # Who does not answer may hold the rest.
                self._summaries.let_go(catalog, set[str]().union(*survey.held.values()))
            for name, held in survey.held.items():
                if name in self._ids:
                    known = seen.get(name, set())
                    catalog.remember_seen(self._repository, self._ids[name], held - known)
                    catalog.forget_seen(self._repository, self._ids[name], survey.forgotten[name] & known)

        await self._call(note, None)
        return [
            _gone(name, snapshot)
            for name, held in survey.held.items()
            for snapshot in sorted(seen.get(name, set()) - held - survey.forgotten[name])
        ]

    async def note_listing(self, listing: Listing, recalled: Recalled) -> list[Damage]:
        """As ``note_survey``, of a listing of all commits; ``recalled`` before it was made."""
        known = recalled.summaries.ids()
        fresh = [summarize(item.snapshot) for key, item in listing.snapshots.items() if key not in known]
        found = Survey(recalled.summaries, fresh, listing.held, listing.forgotten, failures=listing.failures)
        return await self.note_survey(found, recalled.seen)

    async def note_found(self, snapshot: Snapshot, holders: Iterable[str], absent: Iterable[str]) -> list[Damage]:
        """Remembers where one snapshot was found; returns a finding for each of ``absent`` at which it was seen before."""

        def note(catalog: Catalog) -> list[Damage]:
            catalog.remember_generations(self._repository, {snapshot.volume: snapshot.generation})
            for name in holders:
                if name in self._ids:
                    catalog.remember_seen(self._repository, self._ids[name], [snapshot.id])
            return [
                _gone(name, snapshot.id)
                for name in absent
                if name in self._ids and catalog.was_seen(self._repository, self._ids[name], snapshot.id)
            ]

        return await self._call(note, [])

    async def generation(self, volume: str) -> int:
        """The greatest generation of the volume that this machine has seen anywhere, at destinations that do not answer now too."""
        return await self._call(lambda catalog: catalog.generation(self._repository, volume), 0)

    async def note_snapshot(self, snapshot: Snapshot, destinations: Iterable[str]) -> None:
        """Remembers a snapshot that was just made, and who acknowledged it."""

        def note(catalog: Catalog) -> None:
            self._keep(catalog, [summarize(snapshot)])
            for name in destinations:
                if name in self._ids:
                    catalog.remember_seen(self._repository, self._ids[name], [snapshot.id])

        await self._call(note, None)

    async def note_forgotten(self, snapshot: str, destinations: Iterable[str]) -> None:
        """A snapshot was let go on purpose at these destinations: it is not missed there."""
        ids = [self._ids[name] for name in destinations if name in self._ids]

        def note(catalog: Catalog) -> None:
            for where in ids:
                catalog.forget_seen(self._repository, where, [snapshot])

        await self._call(note, None)

    def _keep(self, catalog: Catalog, fresh: Sequence[SnapshotSummary]) -> None:
        self._summaries.add(catalog, fresh)
        # In order of generation, so that of each volume the greatest comes last.
        catalog.remember_generations(self._repository, {item.volume: item.generation for item in sorted(fresh, key=by_age)})

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

    async def note_healed(self, destination: str, objects: Iterable[str]) -> None:
        """These objects (keys) are in good order there now."""
        healed = list(objects)
        if healed and destination in self._ids:
            where = self._ids[destination]
            await self._call(lambda catalog: catalog.clear_damage(self._repository, where, healed), None)

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
        self._summaries = SummaryCache(self._membership.members)
        url = self._membership.config.catalog_url(self._repository)
        self._catalog = await self._membership.tools.threads.run(Catalog.rebuild, url, self._repository)

    async def close(self) -> None:
        """Closes the catalog; remembers how fast the destinations were."""
        if self._catalog is not None:
            await self._note_speeds()
            catalog, self._catalog = self._catalog, None
            await self._membership.tools.threads.run(catalog.close)

    async def recall_speeds(self) -> None:
        """Tells the board what reading from the destinations was like in earlier runs; once, before something is read that takes long."""
        if self._recalled:
            return
        self._recalled = True
        none: dict[str, ReplicaSpeed] = {}
        speeds = await self._call(lambda catalog: catalog.speeds(self._repository), none)
        now = datetime.now(UTC)
        for name, where in self._ids.items():
            if where in speeds:
                found = speeds[where]
                # A clock that went back makes nothing newer than now.
                age = max(0.0, (now - found.measured).total_seconds())
                measured = Measured(found.first_byte, found.goodput, found.tail or None, found.errors)
                self._membership.tools.board.meter(name).remember(measured, age)

    async def _note_speeds(self) -> None:
        from snapferry.catalog import ReplicaSpeed

        now = datetime.now(UTC)
        # Those that were limited were only as fast as they were allowed to be.
        found = {
            self._ids[name]: meter.summary()
            for name, meter in self._membership.tools.board.meters.items()
            if name in self._ids and not self._membership.limits.held_back(name)
        }
        speeds = {
            where: ReplicaSpeed(measured.first_byte, measured.goodput, measured.tail or 0.0, measured.errors, now)
            for where, measured in found.items()
            if measured is not None
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


def _gone(name: str, snapshot: str) -> Damage:
    reason = "was seen here before and is gone without a note that it was let go: this destination was rolled back or lost it"
    return Damage(name, names.snapshot(snapshot), reason, snapshot)
