"""Which snapshots are let go, at which destinations: the policy decides for each destination by itself.

One that lies in parts is let go at all of its destinations or at none: without the parts of one, those of the others are worth nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import NamedTuple

from snapferry.destination import Destination
from snapferry.engine.finding import Finder
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.pruning import freed_without, open_finished
from snapferry.errors import ConfigurationError, DamageError, SnapferryError, SnapshotNotFound
from snapferry.lifecycle.retention import RetentionPolicy, decide
from snapferry.placement import described
from snapferry.repository import objects
from snapferry.repository.failures import combined
from snapferry.repository.forgetting import forget_at
from snapferry.repository.gathering import together
from snapferry.repository.references import ID_PREFIX, resolve
from snapferry.repository.survey import Survey
from snapferry.types import ForgetResult, Forgotten, Snapshot, SnapshotSummary

_NAMED = 5
_IN_PARTS = "other destinations of its set keep it"


class _Going(NamedTuple):
    """One snapshot that is to go, and where. Of one whose commit is broken nothing is known but its id."""

    id: str
    volume: str
    created: datetime | None
    where: tuple[str, ...]
    in_parts: bool = False

    @classmethod
    def of(cls, snapshot: Snapshot | SnapshotSummary, where: tuple[str, ...]) -> _Going:
        return cls(snapshot.id, snapshot.volume, snapshot.created, where, described(snapshot.placement).in_parts)

    def result(self, where: tuple[str, ...], failures: dict[str, BaseException] | None = None) -> Forgotten:
        return Forgotten(self.id, self.volume, self.created, where, failures or {})


class Forgetting:
    """One forget, as ``Repository.forget`` describes it, at the destinations of the names ``wanted``."""

    def __init__(self, membership: Membership, memory: Memory, finder: Finder, wanted: Sequence[str]) -> None:
        self._membership = membership
        self._memory = memory
        self._finder = finder
        self._wanted = tuple(wanted)
        self._everywhere = tuple(destination.name for destination in membership.config.destinations)
        self._failures: dict[str, BaseException] = {}
        self._silent: dict[str, BaseException] = {}
        self._kept: dict[str, dict[str, tuple[str, ...]]] = {}

    async def run(self, references: Sequence[str], policy: RetentionPolicy | None, *, dry_run: bool) -> ForgetResult:
        """Forgets; see ``Repository.forget``."""
        if policy is None and not references:
            raise ConfigurationError("say which snapshots are to be forgotten, or what to keep (--keep-last 7, say)")
        if policy is not None and not policy:
            raise ConfigurationError("the policy keeps nothing by name, number or age; give at least one --keep rule")
        async with AsyncExitStack() as stack:
            # Before anything is listed: a commit that was decided and has no copy yet is not seen, and would come back. What a number or a
            # time means depends on those of all destinations.
            finished = self._wanted if all(map(ID_PREFIX.fullmatch, references)) or policy is not None else self._everywhere
            opened, failures = ({}, {}) if dry_run else await open_finished(self._membership, finished, stack)
            survey = await self._finder.survey()
            failed = {**self._membership.members.failures, **survey.failures, **failures}
            self._failures = {name: failed[name] for name in self._wanted if name in failed}
            self._silent = failed
            if not set(self._wanted) - self._failures.keys():
                raise combined("nothing can be forgotten", self._failures)
            going = await self._named(survey, references) if policy is None else self._by_policy(survey, references, policy)
            if dry_run:
                forgotten = tuple(item.result(item.where) for item in going)
                return ForgetResult(forgotten, self._kept, self._failures, await self._freed(going), dry_run=True)
            return ForgetResult(await self._forget(going, opened), self._kept, self._failures)

    async def _named(self, survey: Survey, references: Sequence[str]) -> list[_Going]:
        """Just these snapshots. A volume's name alone would mean its latest, which nobody means to lose by that."""
        found: dict[str, _Going] = {}
        for reference in references:
            if next(survey.newest_first(reference), None) is not None:
                raise ConfigurationError(
                    f"{reference} is a volume: say what to keep of it (--keep-last 7, say), or name single snapshots by id or as {reference}~N"
                )
            if not ID_PREFIX.fullmatch(reference):
                self._check_sure(survey, reference)
            item = self._broken(survey, reference) or _Going.of(*await self._resolved(resolve(reference, survey)))
            found[item.id] = item._replace(where=self._usable(item.where))
            if item.in_parts and found[item.id].where != item.where:
                raise self._partly(item)
        return list(found.values())

    def _partly(self, item: _Going) -> SnapferryError:
        """One that lies in parts was to be let go at some of its destinations only."""
        failures = {name: self._failures[name] for name in item.where if name in self._failures}
        text = f"snapshot {item.id} lies in parts at {', '.join(item.where)}, and is forgotten at all of them or at none"
        return combined(text, failures) if failures else ConfigurationError(f"{text}; leave --destination out")

    def _check_sure(self, survey: Survey, reference: str) -> None:
        """Refuses a number or a time where a snapshot may be missing among those that are counted: another one would be let go for ever."""
        if self._silent:
            raise combined(f"{reference} may mean another snapshot while not all destinations answer; name it by its id", self._silent)
        if survey.broken:
            commits = "; ".join(f"snapshots/{key}: {reason}" for key, reason in list(survey.broken.items())[:_NAMED])
            raise DamageError(f"{reference} may mean another snapshot, because commits cannot be read; name it by its id ({commits})")

    async def _resolved(self, snapshot_id: str) -> tuple[Snapshot, tuple[str, ...]]:
        (found,) = await self._finder.find(snapshot_id)
        return found.snapshot, found.destinations

    def _broken(self, survey: Survey, reference: str) -> _Going | None:
        """One of which no commit is in good order: it can be let go by its id, and stands in a prune's way until it is."""
        ids = [item for item in survey.broken if ID_PREFIX.fullmatch(reference) and item.startswith(reference)]
        if len(ids) != 1:
            return None
        return _Going(ids[0], "", None, tuple(name for name, held in survey.held.items() if ids[0] in held))

    def _by_policy(self, survey: Survey, volumes: Sequence[str], policy: RetentionPolicy) -> list[_Going]:
        for volume in volumes:
            if next(survey.newest_first(volume), None) is None:
                raise SnapshotNotFound(f"no volume is called {volume!r}")
        chosen = [item for item in survey.listed() if not volumes or item.snapshot.volume in volumes]
        now = objects.now()
        going: dict[str, list[str]] = {}
        for name in self._usable(self._wanted):
            for decision in decide([item.snapshot for item in chosen if name in item.destinations], policy, now):
                if decision.keep:
                    self._kept.setdefault(decision.snapshot.id, {})[name] = decision.reasons
                else:
                    going.setdefault(decision.snapshot.id, []).append(name)
        for item in chosen:
            where = going.get(item.snapshot.id)
            if where and described(item.snapshot.placement).in_parts and set(where) != set(item.destinations):
                self._kept.setdefault(item.snapshot.id, {}).update(dict.fromkeys(where, (_IN_PARTS,)))
                del going[item.snapshot.id]
        return [_Going.of(item.snapshot, tuple(going[item.snapshot.id])) for item in chosen if item.snapshot.id in going]

    def _usable(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in self._wanted and name not in self._failures)

    async def _forget(self, going: Sequence[_Going], opened: Mapping[str, Destination]) -> tuple[Forgotten, ...]:
        keyring = self._membership.members.keyring

        async def one(name: str, snapshot: str) -> SnapferryError | None:
            try:
                await forget_at(keyring, opened[name], snapshot)
            except SnapferryError as error:
                return error
            return None

        done: list[Forgotten] = []
        for item in going:
            errors = dict(zip(item.where, await together(one(name, item.id) for name in item.where), strict=True))
            good = tuple(name for name, error in errors.items() if error is None)
            if item.where:
                await self._memory.note_forgotten(item.id, good)
                done.append(item.result(good, {name: error for name, error in errors.items() if error is not None}))
        return tuple(done)

    async def _freed(self, going: Sequence[_Going]) -> dict[str, int]:
        """By destination, what a prune would give back once these are gone."""
        without: dict[str, set[str]] = {name: set() for name in self._wanted if name not in self._failures}
        for item in going:
            for name in item.where:
                without[name].add(item.id)
        return await freed_without(self._membership, without)
