"""A sync: what each destination lacks is copied to it from the others, each at its own pace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.pruning import open_finished
from snapferry.engine.standing import standing
from snapferry.errors import ConfigurationError, DamageError, DestinationError, SnapferryError
from snapferry.lifecycle.placing import wanted
from snapferry.lifecycle.syncing import Bring, price_of, to_bring
from snapferry.pipeline.catch_up import CatchUp
from snapferry.pipeline.lacking import lacking
from snapferry.pipeline.putting_back import PutBack, put_back
from snapferry.placement import described
from snapferry.repository import names
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import LoadedIndex
from snapferry.repository.presence import Presence, list_presence
from snapferry.repository.references import resolve
from snapferry.repository.slot_keeping import bring
from snapferry.repository.snapshots import read_first_good
from snapferry.repository.survey import Survey
from snapferry.transport import leftovers
from snapferry.types import Progress, ProgressCallback, Snapshot, Synced, SyncResult


@dataclass(slots=True)
class _View:
    """What the destinations were found to hold; taken anew where it turns out to be old."""

    presence: Presence
    loaded: LoadedIndex


@dataclass(slots=True)
class _Target:
    """One destination that is being brought up to date."""

    name: str
    bring: list[Bring]
    done: list[str] = field(default_factory=list)
    packs: int = 0
    copied: int = 0
    failures: dict[str, BaseException] = field(default_factory=dict)
    price: tuple[float, float] = (0.0, 0.0)

    def result(self) -> Synced:
        return Synced(self.name, tuple(self.done), self.packs, self.copied, self.failures, *self.price)


class Syncing:
    """One sync, as ``Repository.sync`` describes it.

    Arguments:
        targets: names. sources: names; None for all.
        on_progress: gets events of the operation ``copy``, whose subject is the target.
    """

    def __init__(
        self,
        membership: Membership,
        memory: Memory,
        targets: Sequence[str],
        sources: Sequence[str] | None,
        on_progress: ProgressCallback | None,
        *,
        dry_run: bool,
    ) -> None:
        self._membership = membership
        self._memory = memory
        self._targets = tuple(targets)
        self._sources = None if sources is None else frozenset(sources)
        self._on_progress = on_progress
        self._dry_run = dry_run
        self._copied: dict[str, int] = {}
        self._leftovers: tuple[Destination, ...] = ()

    async def run(self, snapshots: Sequence[str], volumes: Sequence[str]) -> SyncResult:
        """Syncs; see ``Repository.sync``."""
        begun = time.monotonic()
        membership, memory = self._membership, self._memory
        async with AsyncExitStack() as stack:
            opened, failures = await self._open(stack)
            if not opened:
                raise combined("no destination can be brought up to date", failures)
            found = await standing(membership, memory)
            for name in [name for name in opened if name in found.failures]:
                failures[name] = found.failures[name]
                del opened[name]
            if not opened:
                raise combined("no destination can be brought up to date", failures)
            chosen = await self._chosen(found, snapshots, volumes)
            listed = found.listed()
            kept = await stack.enter_async_context(leftovers(membership.spool_root))
            self._leftovers = tuple(kept.sources.values())
            targets = [
                _Target(name, to_bring(name, listed, found.forgotten[name], wanted, sources=self._sources, chosen=chosen))
                for name in opened
            ]
            view = await self._look()
            bad = await memory.bad_packs()
            await together(self._target(target, opened[target.name], found, view, bad.get(target.name, set())) for target in targets)
            good = {target.name for target in targets if not target.failures}
            if not self._dry_run and chosen is None and membership.spooled_for() <= good:
                # All that was ever spooled for is up to date.
                await kept.discard()
        for name, error in {**membership.members.failures, **found.failures}.items():
            if name not in failures and (self._sources is None or name in self._sources):
                failures[name] = error  # What only it holds was not brought.
        return SyncResult(tuple(target.result() for target in targets), failures, time.monotonic() - begun, self._dry_run)

    async def _open(self, stack: AsyncExitStack) -> tuple[dict[str, Destination], dict[str, BaseException]]:
        """The targets that can be written to, with every key slot that counts; a dry run only reads them."""
        membership = self._membership
        if self._dry_run:
            failures: dict[str, BaseException] = {
                name: error for name, error in membership.members.failures.items() if name in self._targets
            }
            return {name: membership.replicas[name] for name in self._targets if name not in failures}, failures
        opened, failures = await open_finished(membership, self._targets, stack)
        if opened:
            _, refused = await bring(membership.members, opened)
            failures.update(refused)
            opened = {name: destination for name, destination in opened.items() if name not in refused}
        return opened, failures

    async def _chosen(self, found: Survey, snapshots: Sequence[str], volumes: Sequence[str]) -> set[str] | None:
        """The ids that are meant; None for all. ``SnapshotNotFound`` for a name that means none."""
        if not snapshots and not volumes:
            return None
        ids = {resolve(reference, found) for reference in snapshots}
        for volume in volumes:
            resolve(volume, found)
            ids |= {summary.id for summary in found.newest_first(volume)}
        return ids

    async def _look(self) -> _View:
        replicas = self._membership.replicas
        presence = await list_presence(replicas)
        loaded = await self._membership.cache.load(replicas, presence)
        await self._memory.note_damage(loaded.damage)
        presence.drop(loaded.bad_packs)
        presence.drop_misfits(loaded.sizes_that_differ(presence))
        loaded.index.declare_usable(loaded.index.named(b"".join({pack for packs in presence.packs.values() for pack in packs})))
        return _View(presence, loaded)

    async def _target(self, target: _Target, destination: Destination, found: Survey, view: _View, bad: set[bytes]) -> None:
        """Everything for one destination. What fails at the destination itself ends it; what one snapshot lacks does not."""
        try:
            broken = await self._lacking(target, found, view, bad)
            if self._dry_run:
                await self._count(target, view, broken, bad)
                return
            healed = await put_back(broken, destination, self._others(target.name, view), self._membership.tools, self._progress)
            await self._note(target, healed)
            for item in target.bring:
                await self._bring(target, destination, item, view, bad)
        except SnapferryError as error:
            target.failures[target.name] = error
        finally:
            target.copied = self._copied.get(target.name, target.copied)

    async def _lacking(self, target: _Target, found: Survey, view: _View, bad: AbstractSet[bytes]) -> set[bytes]:
        """Packs that snapshots need which are held there, and that are missing there or known to be broken."""
        listed = view.presence.packs.get(target.name, {})
        own = view.loaded.packs_named(view.loaded.segments.get(target.name, {}))
        suspected = (own - listed.keys()) | bad
        if not suspected:
            return set()
        held = [await self._snapshot(key, found.holders(key)) for key in sorted(found.held[target.name] - found.broken.keys())]
        # What lies in parts lacks packs here by design.
        held = [snapshot for snapshot in held if not described(snapshot.placement).in_parts]
        replicas, tools = self._membership.replicas, self._membership.tools
        return await lacking(held, replicas, view.loaded, listed.keys() - bad, suspected, tools)

    async def _bring(self, target: _Target, destination: Destination, item: Bring, view: _View, bad: AbstractSet[bytes]) -> None:
        key = item.snapshot.id
        try:
            snapshot = await self._snapshot(key, item.holders)
            try:
                brought = await self._copier(snapshot, item.holders, item, view).bring(destination, bad)
            except DamageError:
                # A prune at a source may have copied elsewhere what was listed; or only another one has a pack that is whole.
                fresh = await self._look()
                view.presence, view.loaded = fresh.presence, fresh.loaded
                others = tuple(self._others(target.name, view))
                brought = await self._copier(snapshot, others, item, view).bring(destination, bad)
        except SnapferryError as error:
            target.failures[key] = error
            if isinstance(error, DestinationError) and error.destination == target.name and error.exit_code in (10, 12, 13, 14):
                raise
            return
        if brought:
            target.done.append(key)
            await self._memory.note_found(snapshot, [target.name], [])

    async def _count(self, target: _Target, view: _View, broken: AbstractSet[bytes], bad: AbstractSet[bytes]) -> None:
        """What would be copied, and for how much."""
        packs = set(broken)
        listed = view.presence.packs.get(target.name, {}).keys() - bad
        for item in target.bring:
            try:
                snapshot = await self._snapshot(item.snapshot.id, item.holders)
                packs |= set(await self._copier(snapshot, item.holders, item, view).needed()) - listed
                target.done.append(item.snapshot.id)
            except SnapferryError as error:
                target.failures[item.snapshot.id] = error
        others = [name for name in view.presence.packs if name != target.name and (self._sources is None or name in self._sources)]
        holders = {pack: [name for name in others if pack in view.presence.packs[name]] for pack in packs}
        sizes = {pack: view.presence.packs[where[0]][pack] for pack, where in holders.items() if where}
        prices = {destination.name: destination.price for destination in self._membership.config.destinations}
        target.packs, target.copied = len(broken), sum(sizes.values())
        target.price = price_of(sizes, holders, prices, target.name)

    async def _snapshot(self, key: str, holders: Sequence[str]) -> Snapshot:
        snapshot, failures = await read_first_good(self._membership.members.keyring, self._membership.replicas, key, holders)
        if snapshot is None:
            raise combined(f"snapshot {key} cannot be read", failures)
        return snapshot

    def _copier(self, snapshot: Snapshot, sources_of: Sequence[str], item: Bring, view: _View) -> CatchUp:
        sources = {name: self._membership.replicas[name] for name in sources_of}
        present = {pack for name in sources for pack in view.presence.packs.get(name, {})}
        copies = described(snapshot.placement).copies

        def too_few(name: str, pack: bytes, groups: AbstractSet[int]) -> bool:
            del groups
            # Elsewhere nobody keeps it: a prune there may delete it at any time.
            return copies is None or len({*item.holders, name}.intersection(view.presence.holders(pack))) < copies

        return CatchUp(
            snapshot, sources, self._membership.tools, view.loaded, present, self._leftovers, on_copied=self._progress, wants=too_few
        )

    def _others(self, target: str, view: _View) -> dict[str, Destination]:
        replicas = self._membership.replicas
        names_of = [name for name in view.presence.packs if name != target and (self._sources is None or name in self._sources)]
        return {name: replicas[name] for name in names_of}

    async def _note(self, target: _Target, healed: PutBack) -> None:
        target.packs = len(healed.packs)
        target.failures.update({names.pack(pack): error for pack, error in healed.failures.items()})
        await self._memory.note_healed(target.name, [names.pack(pack) for pack in healed.packs])

    def _progress(self, name: str, size: int) -> None:
        self._copied[name] = self._copied.get(name, 0) + size
        if self._on_progress is not None:
            self._on_progress(Progress("copy", name, self._copied[name], None, dict(self._copied)))


def check_sync(targets: Sequence[str], sources: Sequence[str] | None, everywhere: Mapping[str, object]) -> None:
    """``ConfigurationError`` where nothing could ever be copied."""
    if len(everywhere) < 2:
        raise ConfigurationError("there is one destination only: nothing can be copied to it, nor from it")
    for target in targets:
        if sources is not None and set(sources) <= {target}:
            raise ConfigurationError(f"{target} cannot be brought up to date from itself")
