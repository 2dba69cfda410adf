"""The end of an export: commits where everything is, brings the others up to date, and commits there too."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet

from snapferry.errors import Fenced, SnapferryError
from snapferry.pipeline.catch_up import CatchUp
from snapferry.pipeline.preparing import Prepared
from snapferry.pipeline.tools import Tools
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
        abandon: called where no commit may be begun any more, because too few would be left.

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
        *,
        min_copies: int,
        abandon: Callable[[], Awaitable[None]],
    ) -> None:
        self._prepared = prepared
        self._fanout = fanout
        self._sent = sent
        self._tools = tools
        self._min_copies = min_copies
        self._abandon = abandon
        self._acknowledged: set[str] = set()
        self.begun: set[str] = set()
        self.bytes_copied: dict[str, int] = {}

    async def run(self, snapshot: Snapshot) -> set[str]:
        """Commits ``snapshot``, all packs and segments of which are acknowledged; returns who holds it now. No failure of one is raised."""
        prepared, alive, acknowledged = self._prepared, self._fanout.alive, self._acknowledged
        commit = self._tools.keyring.seal("commit", names.snapshot(snapshot.id), objects.commit_payload(snapshot))
        ready = [name for name in prepared.up_to_date if name in alive]
        behind = [name for name in prepared.destinations if name in alive and name not in ready]
        if len(ready) >= self._min_copies:
            await together(self._end(name, snapshot, commit) for name in ready)
            ready = []
        if behind:
            ready += await self._catch_up(snapshot, behind, tuple(acknowledged) or tuple(ready))
        if len(ready) + len(acknowledged) < self._min_copies:
            await self._abandon()
        else:
            await together(self._end(name, snapshot, commit) for name in ready if name in self._fanout.alive)
        await self._catch_up_parent([name for name in behind if name in acknowledged], acknowledged.difference(behind))
        return acknowledged

    async def _end(self, name: str, snapshot: Snapshot, commit: bytes) -> None:
        self.begun.add(name)
        try:
            await self._prepared.sessions[name].end("committed", commit)
        except SnapferryError as error:
            if isinstance(error, Fenced) and await is_committed(self._prepared.destinations[name], snapshot.id, commit):
                self._acknowledged.add(name)
            else:
                self._fanout.fail(name, error)
        else:
            self._acknowledged.add(name)

    async def _catch_up(self, snapshot: Snapshot, behind: list[str], healthy: tuple[str, ...]) -> list[str]:
        """Copies what the new snapshot needs to those behind; returns those that now hold everything."""
        prepared, copier = self._prepared, self._copier(snapshot, healthy)

        async def one(name: str) -> str | None:
            try:
                presence = prepared.presence.packs.get(name, {}).keys() | self._sent
                await copier.packs(prepared.destinations[name], presence, prepared.avoided.get(name, frozenset()))
                await copier.segments(prepared.destinations[name])
            except SnapferryError as error:
                self._fanout.fail(name, error)
                return None
            finally:
                self.bytes_copied[name] = copier.bytes_copied.get(name, 0)
            return name

        return [name for name in await together(one(name) for name in behind) if name is not None]

    async def _catch_up_parent(self, behind: list[str], healthy: AbstractSet[str]) -> None:
        """The parent's commit too, where it was missing. A failure here takes nothing from the snapshot that was just made."""
        reference = self._prepared.reference
        if reference is None or not healthy:
            return
        copier = self._copier(reference, tuple(name for name in self._prepared.holders if name in healthy))
        for name in behind:
            with contextlib.suppress(SnapferryError):
                await copier.bring(self._prepared.destinations[name], self._prepared.known_bad.get(name, frozenset()))
            self.bytes_copied[name] = self.bytes_copied.get(name, 0) + copier.bytes_copied.get(name, 0)

    def _copier(self, snapshot: Snapshot, healthy: tuple[str, ...]) -> CatchUp:
        prepared = self._prepared
        sources = {name: prepared.destinations[name] for name in healthy if name in prepared.destinations}
        present = self._sent | {pack for name in sources for pack in prepared.presence.packs.get(name, {})}
        return CatchUp(snapshot, sources, self._tools, prepared.loaded, present)
