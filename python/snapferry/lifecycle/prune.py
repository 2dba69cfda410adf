"""A prune: at each destination the packs that no snapshot and no session needs are condemned and deleted (docs/format.md, "Deletion").

Packs that are mostly dead are copied first, the same new packs to all destinations at once, so that one can still heal the other. Where
destinations differ in what they keep, nothing is copied: packs go there once all of them is dead.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import Fenced, SnapferryError
from snapferry.lifecycle.collection import Decision, PackUse, decide
from snapferry.lifecycle.finishing import Collecting, left_open, still_needed, unknown_need
from snapferry.lifecycle.waiting import LEASE_SECONDS
from snapferry.pipeline.marking import mark
from snapferry.pipeline.rebuild import store_added
from snapferry.pipeline.repack import Repack
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.collections import Condemned, list_collections, publish
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import IndexCache
from snapferry.repository.presence import Presence, list_presence
from snapferry.repository.reached import Reached, Tree, list_reached
from snapferry.transport import TooFewCopies
from snapferry.types import Pruned, PruneResult

MAX_UNUSED = 0.05
_TRIES = 3
_SCRATCH = "prune-"
_STALE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune is to do.

    Attributes:
        max_unused: the share (0 to 1) of what stays that may be needed by nobody.
        lease: seconds without a beat after which a session is ended.
        complete: all destinations of the repository take part; only then are packs copied.
    """

    max_unused: float = MAX_UNUSED
    lease: float = LEASE_SECONDS
    complete: bool = True
    dry_run: bool = False


class Taken(Exception):
    """Somebody else has opened a collection first; what was looked at is no longer so."""


@dataclass(slots=True)
class _Round:
    """What is found at the destinations that take part, until one of the collections begins."""

    destinations: dict[str, Destination]
    failures: dict[str, BaseException] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    reached: dict[str, Reached] = field(default_factory=dict)
    presence: Presence = field(default_factory=Presence)
    common: _core.PackSet = field(default_factory=lambda: _core.PackSet(b""))
    index: _core.Index = field(default_factory=_core.Index)
    markers: dict[frozenset[Tree], _core.Marker] = field(default_factory=dict)
    everywhere: Presence = field(default_factory=Presence)
    uses: dict[str, dict[bytes, PackUse]] = field(default_factory=dict)
    condemned: dict[str, frozenset[bytes]] = field(default_factory=dict)

    def marker(self, name: str) -> _core.Marker:
        return self.markers[self.reached[name].trees]


class Prune:
    """One run of one prune at ``destinations``, open for writing unless it is a dry run.

    Arguments:
        known_bad: by destination, packs that were found broken there: nothing is kept in them, and they stay for a repair.
        others: destinations that do not take part; only their packs are listed.
        without: by destination, ids of snapshots that a dry run takes for forgotten.
    """

    def __init__(
        self,
        plan: PrunePlan,
        destinations: Mapping[str, Destination],
        cache: IndexCache,
        tools: Tools,
        *,
        known_bad: Mapping[str, AbstractSet[bytes]] | None = None,
        others: Mapping[str, Destination] | None = None,
        without: Mapping[str, AbstractSet[str]] | None = None,
    ) -> None:
        self._plan = plan
        self._without = (without or {}) if plan.dry_run else {}
        self._all = dict(destinations)
        self._known_bad = known_bad or {}
        self._others = dict(others or {})
        self._cache = cache
        self._tools = tools

    async def run(self) -> PruneResult:
        """Prunes; a destination that fails does not stop the others.

        Raises:
            Fenced: other prunes were first each time. Below one destination, an error with every destination's reason.
        """
        begun = time.monotonic()
        for _ in range(_TRIES):
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._tidied()) as scratch:
                try:
                    done, failures = await self._once(Path(scratch))
                except Taken:
                    continue
                return PruneResult(done, failures, time.monotonic() - begun, self._plan.dry_run)
        raise Fenced("other prunes are at work in this repository, and were first each time; run it again when they have ended")

    def _tidied(self) -> Path:
        """Where scratch files go, without those of prunes that were killed."""
        directory = self._cache.directory.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in directory.glob(f"{_SCRATCH}*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        return directory

    async def _once(self, scratch: Path) -> tuple[tuple[Pruned, ...], dict[str, BaseException]]:
        here = _Round(dict(self._all))
        if not self._plan.dry_run:
            await self._each(here, lambda name: self._collecting(here, name, scratch).take_over())
        await self._each(here, lambda name: self._list(here, name))
        await self._sweep(here, scratch)
        decisions, repack = self._decide(here)
        if not self._plan.dry_run:
            here.condemned = {name: decision.dead for name, decision in decisions.items()}
            if repack and not await self._repack(here, repack):
                decisions = {name: decide(here.uses[name], 1.0, frozenset()) for name in here.destinations}
            await self._each(here, lambda name: self._collect(here, name, scratch))
        done = tuple(_pruned(name, decisions[name]) for name in self._all if name in here.destinations)
        if not done:
            raise combined("nothing could be pruned", here.failures)
        return done, here.failures

    async def _each(self, here: _Round, work: Callable[[str], Awaitable[None]]) -> None:
        """Does something at every destination left; one that fails is left out from then on."""

        async def one(name: str) -> SnapferryError | None:
            try:
                await work(name)
            except SnapferryError as error:
                return error
            return None

        wanted = list(here.destinations)
        for name, error in zip(wanted, await together(one(name) for name in wanted), strict=True):
            if error is not None:
                here.failures[name] = error
                del here.destinations[name]

    async def _list(self, here: _Round, name: str) -> None:
        destination = here.destinations[name]
        found = await list_collections(destination)
        if not self._plan.dry_run and await left_open(self._tools.keyring, destination) is not None:
            raise Taken  # Two must never be open at once.
        here.newest[name] = found.newest
        reached = await list_reached(self._tools.keyring, destination)
        gone = self._without.get(name, frozenset())
        here.reached[name] = replace(reached, trees=frozenset(tree for tree in reached.trees if tree.snapshot not in gone))

    async def _sweep(self, here: _Round, scratch: Path) -> None:
        """Which packs are needed for how much, at each destination by what is kept there and lies there."""
        tools = self._tools
        # After the snapshots and sessions: what is there because of them is then listed.
        presence = await list_presence(here.destinations)
        for name, error in presence.failures.items():
            here.failures[name] = error
            del here.destinations[name]
        loaded = await self._cache.load(here.destinations, presence, complete=True)
        await store_added(loaded, {} if self._plan.dry_run else here.destinations, tools.threads)
        presence.drop_misfits(loaded.sizes_that_differ(presence))
        presence.drop(self._known_bad)
        elsewhere = await list_presence(self._others)
        # What everybody has is kept rather than a copy that an interrupted prune left at one place: so that one can heal the other.
        common = Presence({**presence.packs, **elsewhere.packs})
        here.common = _core.PackSet(b"".join(common.everywhere(common.packs)))
        here.presence, here.index = presence, loaded.index
        here.everywhere = common
        for trees in {here.reached[name].trees for name in here.destinations}:
            await self._mark(here, trees, scratch)
        for whole in {_whole(here.reached[name].trees) for name in here.destinations} - {frozenset(), *here.markers}:
            await self._mark(here, whole, scratch)
        await self._each(here, lambda name: self._check_whole(here, name))
        await self._each(here, lambda name: self._use(here, name))

    async def _mark(self, here: _Round, trees: frozenset[Tree], scratch: Path) -> None:
        """Walks the trees once for all destinations that keep just these, or just these whole."""
        alike = {
            name: destination
            for name, destination in here.destinations.items()
            if trees in (here.reached[name].trees, _whole(here.reached[name].trees))
        }
        try:
            here.markers[trees] = await mark(trees, alike, self._tools, scratch)
        except SnapferryError as error:
            for name in alike:
                here.failures[name] = error
                del here.destinations[name]

    async def _check_whole(self, here: _Round, name: str) -> None:
        """Where snapshots in parts lie beside whole ones, these are looked at by themselves too: what they need must all be here."""
        trees = here.reached[name].trees
        if (whole := _whole(trees)) and whole != trees:
            await self._swept(here, name, here.markers[whole])

    async def _use(self, here: _Round, name: str) -> None:
        sizes = here.presence.packs[name]
        found = await self._swept(here, name, here.marker(name))
        here.uses[name] = {pack: PackUse(pack, sizes[pack], live, total, pages) for pack, live, total, pages in found}

    async def _swept(self, here: _Round, name: str, marker: _core.Marker) -> list[tuple[bytes, int, int, bool]]:
        present = _core.PackSet(b"".join(here.presence.packs[name]))
        try:
            return await self._tools.threads.run(marker.sweep, here.index, present, here.common)
        except _core.DamagedError as error:
            raise unknown_need(name, error) from error

    def _decide(self, here: _Round) -> tuple[dict[str, Decision], frozenset[bytes]]:
        """What goes where; and the packs whose live records are copied first: the same at all destinations, or none."""
        alike = self._plan.complete and not here.failures and len({here.reached[name].trees for name in here.destinations}) == 1
        everywhere = here.presence.everywhere(here.destinations) if alike else set()
        decisions = {name: decide(here.uses[name], self._plan.max_unused, everywhere) for name in here.destinations}
        repack = frozenset.intersection(*(decision.repack for decision in decisions.values())) if decisions else frozenset()
        return {name: decide(here.uses[name], self._plan.max_unused, repack) for name in here.destinations}, repack

    async def _repack(self, here: _Round, packs: frozenset[bytes]) -> bool:
        """Copies what is live in ``packs``; they are condemned then, but for those that could not be copied whole. False if none could."""
        tools = self._tools
        first = next(iter(here.destinations))
        sets = _core.PackSet(b"".join(here.presence.packs[first])), here.common, _core.PackSet(b"".join(packs))
        records = await tools.threads.run(here.marker(first).live_records, here.index, *sets)
        repack = Repack(here.destinations, tools, names.new_id())
        try:
            segments = await repack.run(sorted(records))
        except TooFewCopies as error:
            here.failures.update(error.failures)
            for name in error.failures:
                del here.destinations[name]
            return False
        for segment in segments:
            await tools.threads.run(here.index.add_segment, bytes.fromhex(segment.id), segment.plain)
        for name in here.destinations:
            here.presence.packs[name].update(repack.made)
            here.condemned[name] |= packs - repack.given_up
        return True

    async def _collect(self, here: _Round, name: str, scratch: Path) -> None:
        """Opens a collection of what is condemned, and carries it to its end."""
        tools, destination, reached = self._tools, here.destinations[name], here.reached[name]
        condemned = here.condemned[name]
        # Proven once more, from the other side: without these packs everything that is needed is still there.
        condemned -= await still_needed(here.marker(name), here.index, here.presence.packs[name], condemned, name, tools)
        opened = Condemned(here.newest[name] + 1, condemned, frozenset(reached.ended))
        if not await publish(tools.keyring, destination, opened):
            raise Taken
        await self._collecting(here, name, scratch).finish(opened, reached.trees)

    def _collecting(self, here: _Round, name: str, scratch: Path) -> Collecting:
        place = scratch / name
        place.mkdir(exist_ok=True)
        bad = self._known_bad.get(name, frozenset())
        elsewhere = _staying_elsewhere(here, name) if name in here.reached and _in_parts(here.reached[name].trees) else set()
        return Collecting(
            here.destinations[name], dict(here.destinations), self._cache, self._tools, self._plan.lease, bad, place, elsewhere
        )


def _in_parts(trees: frozenset[Tree]) -> bool:
    return any(tree.in_parts for tree in trees)


def _whole(trees: frozenset[Tree]) -> frozenset[Tree]:
    return frozenset(tree for tree in trees if not tree.in_parts)


def _staying_elsewhere(here: _Round, name: str) -> set[bytes]:
    others = {other: packs for other, packs in here.everywhere.packs.items() if other != name}
    return {pack for other, packs in others.items() for pack in packs if pack not in here.condemned.get(other, frozenset())}


def _pruned(name: str, decision: Decision) -> Pruned:
    return Pruned(
        destination=name,
        packs_deleted=len(decision.dead | decision.repack),
        bytes_freed=decision.freed,
        packs_repacked=len(decision.repack),
        bytes_repacked=decision.copied,
        bytes_kept=decision.kept,
        bytes_unused=decision.unused,
    )
