"""The destinations of one open repository, for those who look after them: list, add, test, remove."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from snapferry.config import Config, DestinationConfig, Price
from snapferry.config.editing import add_destination, check_added, check_removed, remove_destination
from snapferry.destination import Destination, free_bytes
from snapferry.destination.proof import Proof, prove
from snapferry.engine.creating import learned, prepare
from snapferry.engine.membership import Membership, open_all
from snapferry.engine.memory import Memory
from snapferry.engine.standing import standing
from snapferry.errors import ConfigurationError, DamageError, DestinationError, NotARepository, SnapferryError
from snapferry.lifecycle.placing import wanted
from snapferry.lifecycle.syncing import GB, to_bring
from snapferry.pipeline.extent_reader import index_opener
from snapferry.pipeline.inspect import missing_everywhere
from snapferry.placement import described
from snapferry.repository import names
from snapferry.repository.attaching import attach, is_ours
from snapferry.repository.dismantling import dismantle
from snapferry.repository.gathering import together
from snapferry.repository.presence import list_presence
from snapferry.repository.snapshots import read_first_good
from snapferry.repository.survey import Survey
from snapferry.types import ListedSummary, SnapshotSummary

_NAMED = 5


@dataclass(frozen=True, slots=True)
class DestinationState:
    """How one destination stands.

    Attributes:
        url: without secrets.
        error: why it cannot be used; then nothing is known of the rest. unwritable: why it can be read and not written to.
        snapshots: how many it holds. behind: how many others hold and it lacks, though it has not let them go.
        bytes_stored: of packs and index. bytes_free: what its store has room for, where it says so.
        limit_rate: bytes a second, or None. price: as configured; ``price_month`` is what keeping all that costs.
    """

    name: str
    url: str
    slow: str
    limit_rate: float | None
    price: Price
    error: BaseException | None = None
    unwritable: BaseException | None = None
    snapshots: int | None = None
    behind: int | None = None
    bytes_stored: int | None = None
    bytes_free: int | None = None
    price_month: float = 0.0


@dataclass(frozen=True, slots=True)
class Added:
    """What was added: the configuration that has it now, and whether the place held the repository before."""

    config: Config
    destination: DestinationConfig
    attached: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """What was taken out: the configuration without it, the snapshots that nobody can restore without it as far as is known, how many objects were deleted."""

    config: Config
    only_here: tuple[SnapshotSummary, ...]
    deleted: int = 0


class Destinations:
    """Reached as ``Repository.destinations``. An open repository goes on with those it was opened with."""

    def __init__(self, membership: Membership, memory: Memory) -> None:
        self._membership = membership
        self._memory = memory

    async def list(self) -> tuple[DestinationState, ...]:
        """Every destination of the configuration, in its order."""
        membership = self._membership
        found = await standing(membership, self._memory)
        return tuple(await together(self._state(destination, found) for destination in membership.config.destinations))

    async def add(self, destination: DestinationConfig, *, dry_run: bool = False) -> Added:
        """Makes a new place hold the repository, or attaches one that does, and adds it to the configuration file. It copies no snapshot.

        Arguments:
            destination: see ``snapferry.config.parse_destination``.
            dry_run: check the name and the place's URL; write nothing.

        Raises:
            ConfigurationError: its name is taken, or it is a place that the configuration has. SnapferryError: another repository is
            there, or the file cannot be written. DestinationError: as the destination raises it. What was made stays, and is used
            when the call is repeated.
        """
        config = self._membership.config
        changed = check_added(config, destination)
        if dry_run:
            return Added(changed, destination, attached=False)
        destination = dataclasses.replace(destination, plugin=changed.destination(destination.name).plugin)
        destination = await learned(destination, prepare)
        async with AsyncExitStack() as stack:
            place = await self._opened(destination, stack)
            attached = await attach(self._membership.members, place)
        return Added(add_destination(config, destination), destination, attached)

    async def test(self, name: str, *, size: int | None = None) -> Proof:
        """Tries a destination out: creates, reads, lists and deletes objects of no repository there, and times one as large as a pack.

        Arguments:
            size: of that one, in bytes.

        Raises:
            DestinationError: it cannot be reached, or not be written to, or is another place than it was. ObjectDamaged: it gives other bytes than it was given.
        """
        config = self._membership.config.destination(name)
        async with AsyncExitStack() as stack:
            opened, failures = await self._membership.writable([name], stack)
            if config.name not in opened:
                raise failures[name]
            return await (prove(opened[name]) if size is None else prove(opened[name], size=size))

    async def check_removal(self, name: str) -> Removed:
        """What ``remove`` would do, and nothing done; ``ConfigurationError`` where the configuration would make no sense without it.

        ``only_here`` are snapshots that no other destination is known to hold, and those in parts that the others cannot bring back without it.
        """
        membership = self._membership
        changed = check_removed(membership.config, membership.config.destination(name).name)
        found = await standing(membership, self._memory)
        held = found.held.get(name, set()) if name in membership.replicas and name not in found.failures else set()
        only = {key for key in held if found.holders(key) == (name,)}
        if held:
            only |= await self._parted_by(name, [item for item in found.listed() if item.snapshot.id not in only])
        return Removed(changed, tuple(summary for summary in found.summaries.all() if summary.id in only))

    async def _parted_by(self, name: str, items: Sequence[ListedSummary]) -> set[str]:
        """Those of ``items`` that lie in parts, also at ``name``, and are not whole without it as far as can be told."""
        membership, parted = self._membership, set[str]()
        items = [
            item
            for item in items
            if (placed := described(item.snapshot.placement)).in_parts and name in {*placed.members, *item.destinations}
        ]
        if not items:
            return parted
        others = {other: replica for other, replica in membership.replicas.items() if other != name}
        presence = await list_presence(others)
        for item in items:
            holders = [other for other in item.destinations if other != name]
            snapshot, _ = await read_first_good(membership.members.keyring, others, item.snapshot.id, holders)
            try:
                opener = index_opener(membership.cache, others)
                if snapshot is None or (await missing_everywhere(snapshot, others, presence, membership.tools, opener))[0]:
                    parted.add(item.snapshot.id)
            except (DamageError, DestinationError):
                parted.add(item.snapshot.id)
        return parted

    async def remove(self, name: str, *, force: bool = False, delete_objects: bool = False) -> Removed:
        """Takes a destination out of the configuration file.

        Arguments:
            force: also if snapshots, or packs that one in parts needs, are held there alone, or if it does not answer so that this cannot be told.
            delete_objects: delete all that the repository has there first. It cannot be undone.

        Raises:
            ConfigurationError: it is the last one, or named elsewhere in the configuration. SnapferryError: ``force`` is needed.
            DestinationError: the objects cannot be deleted; then it stays in the configuration.
        """
        check_name(self._membership.config, name)
        told = await self.check_removal(name)
        membership = self._membership
        if not force and told.only_here:
            raise SnapferryError(
                f"{name} is the only destination that holds {len(told.only_here)} snapshots, or parts that they need: {_some(told.only_here)};"
                " bring them to another one first (`snapferry destination sync`; what lies in parts stays there until it is forgotten), or say --force"
            )
        problem = membership.members.failures.get(name)
        if not force and problem is not None:
            raise SnapferryError(
                f"{name} cannot be asked whether it alone holds some snapshots: {problem}; say --force to remove it all the same"
            )
        deleted = 0
        if delete_objects:
            async with AsyncExitStack() as stack:
                place = await self._opened(membership.config.destination(name), stack)
                if not await is_ours(membership.members, place):
                    raise NotARepository(f"{name}: nothing at {place.url} proves that it is this repository's; nothing was deleted")
                deleted = await dismantle(place)
        return Removed(remove_destination(membership.config, name), told.only_here, deleted)

    async def _opened(self, destination: DestinationConfig, stack: AsyncExitStack) -> Destination:
        opened, failures = await open_all([destination], self._membership.tools.board, self._membership.limits, stack, writable=True)
        if failures:
            raise failures[destination.name]
        return opened[destination.name]

    async def _state(self, config: DestinationConfig, found: Survey) -> DestinationState:
        members, name = self._membership.members, config.name
        rate, shown = self._membership.limits.rate_of(name), config.shown_url
        error: BaseException | None = members.failures.get(name) or found.failures.get(name)
        if error is None:
            try:
                replica = members.replicas[name]
                stored = await _stored(replica)
                behind = len(to_bring(name, found.listed(), found.forgotten[name], wanted))
                return DestinationState(
                    name, shown, config.slow, rate, config.price,
                    unwritable=members.unwritable.get(name), snapshots=len(found.held[name] - found.broken.keys()), behind=behind,
                    bytes_stored=stored, bytes_free=await free_bytes(replica), price_month=stored / GB * config.price.store_gb_month,
                )  # fmt: skip
            except DestinationError as failed:
                error = failed
        return DestinationState(name, shown, config.slow, rate, config.price, error)


async def _stored(destination: Destination) -> int:
    return sum([info.size for prefix in (names.PACKS, names.INDEX) async for info in destination.list(prefix)])


def check_name(config: Config, name: str) -> None:
    """``ConfigurationError`` where there is no such destination, or it is the last one."""
    config.destination(name)
    if len(config.destinations) == 1:
        raise ConfigurationError(f"{name} is the last destination: a repository needs one")


def _some(snapshots: Sequence[SnapshotSummary]) -> str:
    named = ", ".join(f"{item.volume} of {item.created:%Y-%m-%dT%H:%M:%SZ} ({item.id[:8]})" for item in snapshots[:_NAMED])
    return named + (f" and {len(snapshots) - _NAMED} more" if len(snapshots) > _NAMED else "")
