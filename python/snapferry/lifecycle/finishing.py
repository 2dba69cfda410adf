"""Carries one open collection to its end at one destination: waits, looks once more at what is needed, deletes, and tidies up.

Anybody may do that, whoever opened it, and several side by side: what is deleted is decided once (``collect/<n>/delete``).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DamageError, ObjectDamaged, ObjectNotFound
from snapferry.lifecycle.deleting import SegmentSweep, delete_all, delete_packs
from snapferry.lifecycle.waiting import Waiting
from snapferry.pipeline.marking import mark
from snapferry.pipeline.rebuild import store_added
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.collections import Condemned, conclude, list_collections, read_condemned, read_delete, settle
from snapferry.repository.index_cache import IndexCache
from snapferry.repository.presence import list_presence
from snapferry.repository.reached import Reached, Tree, list_reached

logger = logging.getLogger("snapferry")


@dataclass(frozen=True, slots=True)
class Collecting:
    """What is at hand to finish collections at ``destination``.

    Attributes:
        replicas: destinations to read manifest pages from.
        lease: seconds without a beat after which a session is ended.
        known_bad: packs that were found broken there: nothing is kept in them.
        scratch: an existing directory for files that are needed meanwhile.
        elsewhere: packs that index segments go on naming though they are not here: parts of snapshots that lie at other destinations.
    """

    destination: Destination
    replicas: Mapping[str, Destination]
    cache: IndexCache
    tools: Tools
    lease: float
    known_bad: AbstractSet[bytes]
    scratch: Path
    elsewhere: AbstractSet[bytes] = frozenset()

    async def take_over(self) -> None:
        """Finishes the collection that somebody left open, if there is one, and ends sessions that are long dead."""
        left = await left_open(self.tools.keyring, self.destination)
        if left is not None:
            await self.finish(left, frozenset())
        await Waiting(self.tools.keyring, self.destination, 0, self.lease).end_long_dead()

    async def finish(self, condemned: Condemned, known: frozenset[Tree]) -> None:
        """Deletes what was condemned and is not needed after all.

        Arguments:
            known: trees that were walked when this was condemned: they need nothing of it.
        """
        keyring, number = self.tools.keyring, condemned.number
        doomed = await self._decided(number)
        if doomed is None:
            reached = await Waiting(keyring, self.destination, number, self.lease).until_known(known)
            rescued = await self._rescued(reached.trees - known, condemned.packs)
            doomed = await settle(keyring, self.destination, number, condemned.packs - rescued)
            if doomed is None:
                return
        else:
            reached = await list_reached(keyring, self.destination, known)
        if doomed:
            await SegmentSweep(self.destination, self.cache, self.tools, self.scratch, self.elsewhere).run(doomed)
            if not await delete_packs(self.destination, number, doomed):
                return
        await conclude(keyring, self.destination, number)
        await self._tidy(number, reached)

    async def _decided(self, number: int) -> frozenset[bytes] | None:
        try:
            return await read_delete(self.tools.keyring, self.destination, number)
        except ObjectNotFound:
            return None

    async def _rescued(self, trees: frozenset[Tree], condemned: frozenset[bytes]) -> frozenset[bytes]:
        """Of the condemned packs those that ``trees`` need."""
        if not trees or not condemned:
            return frozenset()
        where = {self.destination.name: self.destination}
        marker = await mark(trees, self.replicas, self.tools, self.scratch)
        presence = await list_presence(where)
        if presence.failures:
            raise presence.failures[self.destination.name]
        loaded = await self.cache.load(where, presence, complete=True)
        await store_added(loaded, {}, self.tools.threads)
        presence.drop_misfits(loaded.sizes_that_differ(presence))
        presence.drop({self.destination.name: self.known_bad})
        return await still_needed(marker, loaded.index, presence.packs[self.destination.name], condemned, self.destination.name, self.tools)

    async def _tidy(self, number: int, reached: Reached) -> None:
        """Deletes what had its day when the collection before this one was published; commits that were let go; and older collections."""
        found = await list_collections(self.destination)
        ended = reached.half_removed
        if number - 1 in found.keys:
            with contextlib.suppress(
                ObjectNotFound, ObjectDamaged
            ):  # Another collector was here first; or it is torn, and its sessions stay.
                ended |= (await read_condemned(self.tools.keyring, self.destination, number - 1)).ended
        for session in sorted(ended & reached.ended.keys()):
            # Its end holds the commit: it goes only where the commit has its copy, or is not wanted.
            kept = reached.copies | reached.notes
            if session in kept or reached.made.get(session) in kept or session in reached.uncommitted:
                for key in reached.ended[session]:
                    await self.destination.delete(key)
        await delete_all(self.destination, [names.snapshot(snapshot) for snapshot in sorted(reached.copies & reached.notes)])
        await delete_all(self.destination, [key for older in sorted(found.keys) if older < number for key in found.keys[older]])


async def left_open(keyring: _core.Keyring, destination: Destination) -> Condemned | None:
    """The collection that is open at a destination.

    None also for one of which nobody can tell any more what it condemned or deletes: it is void, and the next number takes its place.
    Whoever still works at it finds that out before the next batch of deletes.
    """
    found = await list_collections(destination)
    if not found.open:
        return None
    try:
        condemned = await read_condemned(keyring, destination, found.newest)
        if names.DELETE in found.parts:
            await read_delete(keyring, destination, found.newest)
    except (ObjectDamaged, ObjectNotFound) as error:
        logger.warning("%s: collection %d is passed over: %s", destination.name, found.newest, error)
        return None
    return condemned


async def still_needed(
    marker: _core.Marker, index: _core.Index, present: Mapping[bytes, int], condemned: frozenset[bytes], where: str, tools: Tools
) -> frozenset[bytes]:
    """Of the condemned packs those that what was marked cannot do without. ``DamageError`` if a needed block lies nowhere."""
    sets = _core.PackSet(b"".join(present)), _core.PackSet(b"".join(condemned))
    try:
        kept = await tools.threads.run(marker.rescued, index, *sets)
    except _core.DamagedError as error:
        raise unknown_need(where, error) from error
    return frozenset(kept[at : at + 32] for at in range(0, len(kept), 32))


def unknown_need(where: str, error: Exception) -> DamageError:
    """Some needed block lies nowhere at a destination: nothing is removed there before that is healed."""
    return DamageError(
        f'{where}: {error}; nothing was removed there. `snapferry verify` tells what is missing; `snapferry repair` puts back what another destination has, or forget the snapshots (docs/operations.md, "Damage")'
    )
