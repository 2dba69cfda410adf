"""The end of an export: each destination commits as soon as it holds everything, and enough others do; those behind are brought up to date first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from snapferry.destination import Destination
from snapferry.errors import Fenced, SnapferryError
from snapferry.pipeline.catch_up import CatchUp, everything
from snapferry.pipeline.preparing import Prepared
from snapferry.pipeline.tools import Tools
from snapferry.placement import placed_alike
from snapferry.repository import names, objects
from snapferry.repository.gathering import together
from snapferry.repository.sessions import is_committed
from snapferry.transport import FanOut
from snapferry.types import Snapshot


class Committing:
    """The commits of one export.

    Arguments:
        sent: packs whose sending has begun; live.
        tools: for the copies, whole packs at a time.
        leftovers: stores on this machine that may have packs which a destination lacks.

    Attributes:
        begun: where a commit was begun: it may be decided, whatever the store answers.
        bytes_copied: by destination, to bring it up to date.
    """

    def __init__(
        self,
        prepared: Prepared,
        fanout: FanOut,
        sent: AbstractSet[bytes],
        tools: Tools,
        leftovers: Sequence[Destination] = (),
    ) -> None:
        self._prepared = prepared
        self._fanout = fanout
        self._sent = sent
        self._tools = tools
        self._leftovers = leftovers
        self._holding: set[str] = set()
        self._settled: set[str] = set()
        self._acknowledged: set[str] = set()
        self._changed = asyncio.Condition()
        self._copiers: dict[tuple[str, frozenset[str]], CatchUp] = {}
        self.begun: set[str] = set()
        self.bytes_copied: dict[str, int] = {}

    async def run(self, snapshot: Snapshot) -> set[str]:
        """Commits ``snapshot``, all packs and segments of which were sent; returns who holds it now. No failure of one is raised."""
        mark = self._fanout.mark()
        # Once for all, since the same name has the same bytes everywhere.
        commit = self._tools.keyring.seal("commit", names.snapshot(snapshot.id), objects.commit_payload(snapshot))
        await together(self._finish(name, snapshot, commit, mark) for name in self._prepared.destinations)
        behind = [name for name in self._prepared.destinations if name in self._acknowledged.difference(self._prepared.up_to_date)]
        await self._catch_up_parent(behind, self._acknowledged.difference(behind))
        return self._acknowledged

    async def _finish(self, name: str, snapshot: Snapshot, commit: bytes, mark: int) -> None:
        """All of one destination's end, at its own pace."""
        try:
            await self._fanout.reached(name, mark)
            if name not in self._prepared.up_to_date:
                await self._until(self._there_are_sources)
                await self._catch_up(name, snapshot)
        except SnapferryError as error:
            self._fanout.fail(name, error)
        else:
            if name in self._fanout.alive:
                self._holding.add(name)
        self._settled.add(name)
        await self._tell()
        if name in self._holding:
            await self._until(self._may_commit)
            if self._enough() and name in self._fanout.alive:
                await self._end(name, snapshot, commit)
                await self._tell()

    def _enough(self) -> bool:
        """Of those that hold everything, without one that failed while it waited. Once a commit was begun the others follow, whatever became of it."""
        return bool(self.begun) or not self._prepared.short(self._holding & self._fanout.alive)

    def _may_commit(self) -> bool:
        """Enough hold everything; or it is known that there will never be enough."""
        return self._enough() or self._settled.issuperset(self._prepared.destinations)

    def _there_are_sources(self) -> bool:
        """It is all there, for good; or whoever was to have it has, or never will."""
        return bool(self._acknowledged) or self._settled.issuperset(self._prepared.up_to_date)

    async def _until(self, state: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(state)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _end(self, name: str, snapshot: Snapshot, commit: bytes) -> None:
        self.begun.add(name)
        try:
            await self._prepared.sessions[name].end("committed", commit)
        except SnapferryError as error:
            if not isinstance(error, Fenced) or not await is_committed(self._prepared.destinations[name], snapshot.id, commit):
                self._fanout.fail(name, error)
                return
        self._acknowledged.add(name)
        self._fanout.note_acknowledged(name)

    async def _catch_up(self, name: str, snapshot: Snapshot) -> None:
        """Copies what the new snapshot needs to one that is behind. Raises what it fails with."""
        prepared = self._prepared
        copier = self._copier(snapshot, self._acknowledged or self._holding)
        try:
            presence = prepared.presence.packs.get(name, {}).keys() | self._sent
            await copier.packs(prepared.destinations[name], presence, prepared.avoided.get(name, frozenset()))
            await copier.segments(prepared.destinations[name])
        finally:
            self.bytes_copied[name] = copier.bytes_copied.get(name, 0)

    async def _catch_up_parent(self, behind: list[str], healthy: AbstractSet[str]) -> None:
        """The parent's commit too, where it was missing. A failure here takes nothing from the snapshot that was just made."""
        reference = self._prepared.reference
        if reference is None or not healthy or not placed_alike(reference.placement, self._prepared.standing.layout):
            return  # One that was placed otherwise stays as it is.
        copier = self._copier(reference, healthy & set(self._prepared.holders))
        for name in behind:
            with contextlib.suppress(SnapferryError):
                await copier.bring(self._prepared.destinations[name], self._prepared.known_bad.get(name, frozenset()))
            self.bytes_copied[name] = self.bytes_copied.get(name, 0) + copier.bytes_copied.get(name, 0)

    def _copier(self, snapshot: Snapshot, healthy: AbstractSet[str]) -> CatchUp:
        """One for all that copy the same from the same, since it walks the whole tree.

        What lies in parts may be at any that is alive, also at one that is behind itself.
        """
        prepared = self._prepared
        healthy = healthy if prepared.standing.layout.whole else self._fanout.alive
        sources = {name: destination for name, destination in prepared.destinations.items() if name in healthy}
        key = snapshot.id, frozenset(sources)
        if key not in self._copiers:
            present = self._sent | {pack for name in sources for pack in prepared.presence.packs.get(name, {})}
            layout, wants = prepared.standing.layout, everything if prepared.standing.layout.whole else self._wants
            areas = layout.areas(snapshot.block_size)
            self._copiers[key] = CatchUp(
                snapshot, sources, self._tools, prepared.loaded, present, self._leftovers, areas=areas, wants=wants
            )  # fmt: skip
        return self._copiers[key]

    def _wants(self, name: str, pack: bytes, groups: AbstractSet[int]) -> bool:
        """Whether a pack that was there before has too few copies, and this destination, which is behind, is to have one."""
        standing, presence = self._prepared.standing, self._prepared.presence.packs
        if pack in self._sent:
            return False
        alive = self._fanout.alive
        return any(name in standing.wanting(pack, standing.layout.group(number), alive, presence) for number in groups)
