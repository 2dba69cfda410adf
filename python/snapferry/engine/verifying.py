"""A verification: what of which destination is to be checked, and what is remembered of the answer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.errors import ConfigurationError, SnapshotNotFound
from snapferry.pipeline.parts import part_sets
from snapferry.pipeline.verify import Verification
from snapferry.placement import described
from snapferry.repository import names
from snapferry.repository.failures import combined
from snapferry.repository.index_cache import LoadedIndex
from snapferry.repository.presence import Presence, list_presence
from snapferry.repository.snapshots import Listing, list_snapshots, ordered
from snapferry.types import Damage, ListedSnapshot, ProgressCallback, Snapshot, VerifyResult

logger = logging.getLogger("snapferry")


@dataclass(slots=True)
class Looked:
    """A verification's result, and what it rests on.

    Attributes:
        replicas: the destinations that were looked at. held: by their names, the snapshots of those that were asked for.
        presence: the packs that all destinations list which can be read. segments: by name, the index segments in good order.
    """

    result: VerifyResult
    replicas: Mapping[str, Destination]
    held: Mapping[str, Sequence[Snapshot]]
    listing: Listing
    presence: Presence
    loaded: LoadedIndex
    segments: Mapping[str, Sequence[str]]


def check_share(read_data: float) -> None:
    """``ConfigurationError`` unless it is a percentage."""
    if not 0 <= read_data <= 100:
        raise ConfigurationError(f"{read_data} is no percentage")


async def verify(
    membership: Membership,
    memory: Memory,
    wanted: Sequence[str],
    snapshots: Sequence[str] | None,
    read_data: float,
    on_progress: ProgressCallback | None,
) -> VerifyResult:
    """Checks the destinations ``wanted``; the rest as ``Repository.verify``."""
    if read_data and not membership.members.keyring.reads_data:
        logger.warning("this key can write and not read: the bytes of packs are compared with what their names promise, and not opened")
    return (await look_at(membership, memory, wanted, snapshots, read_data, on_progress)).result


async def look_at(
    membership: Membership,
    memory: Memory,
    wanted: Sequence[str],
    snapshots: Sequence[str] | None,
    read_data: float,
    on_progress: ProgressCallback | None,
) -> Looked:
    """Checks, and remembers what was found; packs that were found broken before are read again."""
    replicas = {name: membership.replicas[name] for name in wanted if name in membership.replicas}
    failures = {name: error for name, error in membership.members.failures.items() if name in wanted}
    if not replicas:
        raise combined("nothing can be verified", failures)
    await membership.tools.renew_keys()
    recalled = await memory.recall()
    listing = await list_snapshots(membership.members.keyring, membership.replicas)
    gone = await memory.note_listing(listing, recalled)
    chosen = {item.snapshot.id for item in ([listing.resolve(ref) for ref in snapshots] if snapshots else listing.snapshots.values())}
    held = {
        name: [item.snapshot for item in ordered(listing.snapshots.values()) if item.snapshot.id in chosen and name in item.destinations]
        for name in replicas
    }
    if snapshots is not None and not any(held.values()):
        raise SnapshotNotFound(f"none of {', '.join(held)} holds what is to be verified")
    presence = await list_presence(replicas)
    loaded = await membership.cache.load(replicas, presence, complete=True)
    looked_at = [item for item in listing.snapshots.values() if item.snapshot.id in chosen]
    everywhere = await _with_others(membership, presence, looked_at)
    loaded.index.declare_usable(b"".join({pack for packs in everywhere.packs.values() for pack in packs}))
    sets = part_sets(looked_at, everywhere, loaded.sizes_that_differ(everywhere), replicas, membership.members.failures)
    verification = Verification(
        replicas, held, presence, loaded, membership.tools,
        read_data=read_data, everything=snapshots is None, sets=sets, suspected=await memory.bad_packs(), on_progress=on_progress,
    )  # fmt: skip
    result = await verification.run(
        [Damage(name, "config", str(error)) for name, error in failures.items() if error.exit_code == 10]
        + [item for item in gone if item.destination in replicas],
        {name: str(error) for name, error in failures.items() if error.exit_code != 10},
    )
    for name, packs in verification.read_well.items():
        await memory.note_healed(name, map(names.pack, packs))
    if snapshots is None and read_data >= 100:
        await memory.replace_damage(replicas, result.damage)
    else:
        await memory.note_damage(result.damage)
    if result.damage:
        await _list_others(membership, presence)
        whole_at = _finder(result.damage, listing, presence, loaded, await memory.damage())
        found = tuple(dataclasses.replace(item, whole_at=whole_at(item)) for item in result.damage)
        result = dataclasses.replace(result, damage=found)
    return Looked(result, replicas, held, listing, presence, loaded, verification.segments)


async def _list_others(membership: Membership, presence: Presence) -> None:
    """The packs of destinations that were not asked for too: they may have what is broken elsewhere."""
    others = {name: replica for name, replica in membership.replicas.items() if name not in presence.packs}
    presence.packs.update((await list_presence(others)).packs)


def _finder(
    found: Iterable[Damage], listing: Listing, presence: Presence, loaded: LoadedIndex, known: Iterable[Damage]
) -> Callable[[Damage], tuple[str, ...]]:
    """Says where the object of a finding is listed by others that are not known to have it broken."""
    bad = {(item.destination, item.object) for item in (*found, *known)}

    def whole_at(item: Damage) -> tuple[str, ...]:
        pack, segment, snapshot = names.parse_pack(item.object), names.parse_segment(item.object), names.parse_snapshot(item.object)
        if pack is not None:
            holders = presence.holders(pack)
        elif segment is not None:
            holders = [name for name, segments in loaded.segments.items() if segment in segments]
        elif snapshot is not None:
            holders = [name for name, ids in listing.held.items() if snapshot in ids]
        else:
            holders = []
        return tuple(name for name in holders if name != item.destination and (name, item.object) not in bad)

    return whole_at


async def _with_others(membership: Membership, presence: Presence, snapshots: Iterable[ListedSnapshot]) -> Presence:
    """What ``presence`` says, and what other destinations list, if any of the snapshots lies there in parts."""
    wanted = {name for item in snapshots if described(item.snapshot.placement).in_parts for name in item.destinations}
    others = await list_presence(
        {name: membership.replicas[name] for name in sorted(wanted - presence.packs.keys() - presence.failures.keys())}
    )
    return Presence({**presence.packs, **others.packs}, {**presence.failures, **others.failures})
