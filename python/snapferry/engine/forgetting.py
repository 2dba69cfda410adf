"""Which snapshots are let go, at which destinations: the policy decides for each destination by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.pruning import freed_without
from snapferry.errors import ConfigurationError, SnapferryError, SnapshotNotFound
from snapferry.lifecycle.retention import RetentionPolicy, decide
from snapferry.repository import objects
from snapferry.repository.failures import combined
from snapferry.repository.forgetting import forget_at
from snapferry.repository.gathering import together
from snapferry.repository.snapshots import Listing
from snapferry.types import ForgetResult, Forgotten, ListedSnapshot


class Forgetting:
    """One forget, as ``Repository.forget`` describes it, at the destinations of the names ``wanted``."""

    def __init__(self, membership: Membership, memory: Memory, listing: Listing, wanted: Sequence[str]) -> None:
        self._membership = membership
        self._memory = memory
        self._listing = listing
        self._wanted = tuple(wanted)
        self._failures: dict[str, BaseException] = {
            name: error for name, error in {**membership.members.failures, **listing.failures}.items() if name in self._wanted
        }
        self._kept: dict[str, dict[str, tuple[str, ...]]] = {}

    async def run(self, references: Sequence[str], policy: RetentionPolicy | None, *, dry_run: bool) -> ForgetResult:
        """Forgets; see ``Repository.forget``."""
        if not set(self._wanted) - self._failures.keys():
            raise combined("nothing can be forgotten", self._failures)
        going = self._named(references) if policy is None else self._by_policy(references, policy)
        if dry_run:
            forgotten = tuple(Forgotten(item.snapshot, where) for item, where in going)
            return ForgetResult(forgotten, self._kept, self._failures, await self._freed(going), dry_run=True)
        return ForgetResult(await self._forget(going), self._kept, self._failures)

    def _named(self, references: Sequence[str]) -> list[tuple[ListedSnapshot, tuple[str, ...]]]:
        """Just these snapshots. A volume's name alone would mean its latest, which nobody means to lose by that."""
        if not references:
            raise ConfigurationError("say which snapshots are to be forgotten, or what to keep (--keep-last 7, say)")
        found: dict[str, ListedSnapshot] = {}
        for reference in references:
            if self._listing.of_volume(reference):
                raise ConfigurationError(
                    f"{reference} is a volume: say what to keep of it (--keep-last 7, say), or name single snapshots by id or as {reference}~N"
                )
            item = self._listing.resolve(reference)
            found[item.snapshot.id] = item
        return [(item, self._holders(item)) for item in found.values()]

    def _by_policy(self, volumes: Sequence[str], policy: RetentionPolicy) -> list[tuple[ListedSnapshot, tuple[str, ...]]]:
        if not policy:
            raise ConfigurationError("the policy keeps nothing by name, number or age; give at least one --keep rule")
        for volume in volumes:
            if not self._listing.of_volume(volume):
                raise SnapshotNotFound(f"no volume is called {volume!r}")
        chosen = [item for item in self._listing.snapshots.values() if not volumes or item.snapshot.volume in volumes]
        now = objects.now()
        going: dict[str, list[str]] = {}
        for name in self._wanted:
            if name in self._failures:
                continue
            for decision in decide([item.snapshot for item in chosen if name in item.destinations], policy, now):
                if decision.keep:
                    self._kept.setdefault(decision.snapshot.id, {})[name] = decision.reasons
                else:
                    going.setdefault(decision.snapshot.id, []).append(name)
        ordered = [item for volume in self._listing.volumes() for item in self._listing.of_volume(volume)]
        return [(item, tuple(going[item.snapshot.id])) for item in ordered if item.snapshot.id in going]

    def _holders(self, item: ListedSnapshot) -> tuple[str, ...]:
        return tuple(name for name in self._wanted if name in item.destinations and name not in self._failures)

    async def _forget(self, going: Iterable[tuple[ListedSnapshot, tuple[str, ...]]]) -> tuple[Forgotten, ...]:
        keyring = self._membership.members.keyring
        done: list[Forgotten] = []
        async with AsyncExitStack() as stack:
            opened, failures = await self._membership.writable([name for name in self._wanted if name not in self._failures], stack)
            self._failures.update(failures)

            async def one(name: str, snapshot: str) -> SnapferryError | None:
                try:
                    await forget_at(keyring, opened[name], snapshot)
                except SnapferryError as error:
                    return error
                return None

            for item, where in going:
                there = [name for name in where if name in opened]
                errors = dict(zip(there, await together(one(name, item.snapshot.id) for name in there), strict=True))
                good = tuple(name for name, error in errors.items() if error is None)
                if there:
                    await self._memory.note_forgotten(item.snapshot, good)
                    done.append(Forgotten(item.snapshot, good, {name: error for name, error in errors.items() if error is not None}))
        if not done and self._failures and any(where for _, where in going):
            raise combined("nothing was forgotten", self._failures)
        return tuple(done)

    async def _freed(self, going: Iterable[tuple[ListedSnapshot, tuple[str, ...]]]) -> dict[str, int]:
        """By destination, what a prune would give back once these are gone."""
        without: dict[str, set[str]] = {name: set() for name in self._wanted if name not in self._failures}
        for item, where in going:
            for name in where:
                without[name].add(item.snapshot.id)
        return await freed_without(self._membership, without)
