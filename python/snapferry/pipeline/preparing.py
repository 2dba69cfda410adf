"""What happens before an export reads its first byte: sessions are begun, then packs are listed and the index is loaded.

In this order, because a pin protects what is listed after it. Which blocks count as known follows from what was found (docs/format.md,
"Which blocks are known"): those in packs that lie, whole, where the layout wants them: on every up-to-date destination, or on enough of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError, Fenced, SnapferryError
from snapferry.pipeline.rebuild import complete_segments, store_added
from snapferry.placement import Layout, Share, Standing
from snapferry.repository import names
from snapferry.repository.gathering import together
from snapferry.repository.index_cache import IndexCache, LoadedIndex
from snapferry.repository.presence import Presence, list_presence
from snapferry.repository.sessions import Begun, Session, abandon, abandoned_on_error, beating
from snapferry.repository.threads import Threads
from snapferry.types import Damage, Snapshot


@dataclass(slots=True)
class Prepared:
    """Ready to export.

    Attributes:
        destinations: those that take part, by name.
        sessions: one at each of them; none in a dry run.
        parent: what blocks are compared with; None if nobody that takes part holds it.
        reference: the latest snapshot of the volume that a member holds, which tells who is behind, and ``holders``, who have its commit.
        up_to_date: names of those that need no copies before they can commit.
        standing: how the members of the layout stood, and ``in_play``: the shares that something of the snapshot may lie under.
        avoided: by destination, packs that are not to be put there (see ``Begun``).
        known_bad: by destination, packs that were found broken there.
        failures: those that could not begin, and why.
    """

    destinations: dict[str, Destination]
    sessions: dict[str, Session]
    parent: Snapshot | None
    reference: Snapshot | None
    holders: tuple[str, ...]
    up_to_date: tuple[str, ...]
    presence: Presence
    loaded: LoadedIndex
    standing: Standing
    in_play: tuple[Share, ...]
    avoided: dict[str, frozenset[bytes]] = field(default_factory=dict)
    known_bad: Mapping[str, AbstractSet[bytes]] = field(default_factory=dict)
    failures: dict[str, SnapferryError] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)

    def short(self, good: AbstractSet[str]) -> list[Share]:
        """Of what there are fewer than ``min_copies`` where only those of the names ``good`` hold what they should; empty: enough of everything."""
        return self.standing.short(self.destinations.keys() - good, self.in_play)

    def why_short(self, good: AbstractSet[str]) -> str:
        """Which part of the volume that is, for messages; nothing where all of it goes to the same places."""
        short = self.short(good)
        found = [group.why for group in self.standing.layout.groups if group.why and not set(short).isdisjoint(group.accepted)]
        return f" of what goes by {'; '.join(found)}" if found else ""


async def prepare(
    keyring: _core.Keyring,
    destinations: Mapping[str, Destination],
    cache: IndexCache,
    threads: Threads,
    *,
    session_id: str,
    volume: str,
    parent: Snapshot | None,
    reference: Snapshot | None,
    holders: tuple[str, ...],
    layout: Layout,
    min_copies: int = 1,
    known_bad: Mapping[str, AbstractSet[bytes]] = MappingProxyType({}),
    presence_at: Callable[[Mapping[str, Destination]], Awaitable[Presence]] = list_presence,
    dry_run: bool = False,
) -> Prepared:
    """Begins sessions at all ``destinations`` and loads what an export builds on; a dry run begins none.

    Arguments:
        parent: the snapshot to compare with, if any.
        reference: the latest snapshot of the volume that a member holds, and ``holders``: the destinations that list its commit.
        layout: where the snapshot goes; members of it that are not among ``destinations`` are absent.
        known_bad: by destination, packs that were found broken there.
        presence_at: lists the packs, beginning after it was called; exports that begin together share one listing.
    """
    parent = parent if reference else None  # Held by nobody here, then.
    pinned = parent or reference
    failures: dict[str, SnapferryError] = {}
    sessions = (
        {} if dry_run else {name: Session(keyring, destination, session_id, volume, pinned) for name, destination in destinations.items()}
    )
    async with abandoned_on_error(sessions.values()):
        begun: dict[str, Begun] = {}
        for name, result in zip(sessions, await together(_begin(session) for session in sessions.values()), strict=True):
            if isinstance(result, Begun):
                begun[name] = result
            else:
                failures[name] = result
        async with beating({name: sessions[name] for name in begun}):
            taking_part = {name: destination for name, destination in destinations.items() if name not in failures}
            presence = await presence_at(taking_part)
            for name, error in presence.failures.items():
                failures[name] = error
                del taking_part[name]
            await abandon(sessions[name] for name in failures if name in sessions)
            presence.drop(known_bad)
            avoided = {name: begun[name].avoided for name in taking_part if name in begun}
            presence.drop(avoided)
            loaded = await cache.load(taking_part, presence)
            if not dry_run:
                await store_added(loaded, taking_part, threads)
                # A writer that was killed may have left a segment at some of its places only.
                await complete_segments(loaded, presence, taking_part)
    presence.drop(loaded.bad_packs)
    damage = list(loaded.damage)
    for name, pack, size in presence.drop_misfits(loaded.sizes_that_differ(presence)):
        damage.append(Damage(name, names.pack(pack), f"{size} bytes long, which is not the length that the index knows"))
    up_to_date = tuple(name for name in taking_part if _holds(name, pinned, reference, holders, begun, dry_run=dry_run))
    if not up_to_date:
        # Nobody here holds the latest snapshot: nothing to compare with, and nobody is behind anybody.
        parent = reference = None
        up_to_date = tuple(taking_part)
    absent, behind = frozenset(layout.members) - taking_part.keys(), frozenset(taking_part.keys() - set(up_to_date))
    standing = Standing(layout, absent, behind, min_copies)
    declare_known(loaded.index, standing, presence)
    return Prepared(
        taking_part,
        {name: session for name, session in sessions.items() if name in taking_part},
        parent,
        reference,
        tuple(name for name in holders if name in taking_part),
        up_to_date,
        presence,
        loaded,
        standing,
        standing.in_play(presence.packs),
        avoided,
        known_bad,
        failures,
        damage,
    )


def declare_known(index: _core.Index, standing: Standing, presence: Presence) -> None:
    """Tells the index in which packs blocks count as known. A pack that neither a segment nor its own tail describes is torn, and none of them."""

    def named(packs: AbstractSet[bytes]) -> bytes:
        return index.named(b"".join(packs))

    everywhere = named(standing.everywhere(presence.packs))
    if standing.layout.whole:
        index.declare_usable(everywhere)
    else:
        index.declare_groups([everywhere, *(named(standing.known_in(group, presence.packs)) for group in standing.layout.groups)])


def _holds(
    name: str, pinned: Snapshot | None, reference: Snapshot | None, holders: tuple[str, ...], begun: Mapping[str, Begun], *, dry_run: bool
) -> bool:
    if pinned is None or reference is None:
        return True
    return name in holders and (dry_run or begun[name].has_parent)


async def _begin(session: Session) -> Begun | SnapferryError:
    try:
        return await session.begin()
    except (DestinationError, Fenced) as error:
        return error
