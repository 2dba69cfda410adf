"""Heals one destination of what was found broken or missing there: small objects first, then packs, then the index that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from snapferry.destination import Destination, list_keys
from snapferry.errors import DamageError, ObjectDamaged, SnapferryError
from snapferry.lifecycle.repairing import Tasks
from snapferry.pipeline.lacking import lacking
from snapferry.pipeline.naming import copy_segment, name_packs
from snapferry.pipeline.putting_back import put_back
from snapferry.pipeline.replicate import is_good
from snapferry.pipeline.tools import Tools
from snapferry.repository import names, objects
from snapferry.repository.collections import being_deleted
from snapferry.repository.index_cache import LoadedIndex
from snapferry.repository.mending import mend_commit, mend_note, mend_session
from snapferry.repository.presence import list_presence
from snapferry.types import Snapshot


@dataclass(slots=True)
class Repaired:
    """What came of it at one destination.

    Attributes:
        gone: ids of snapshots that were here and are not, with nothing here to make them of: a sync brings them.
        reasons: by key, why something is not healed.
        packs: those that are whole again. size: bytes of packs and segments that were stored.
    """

    gone: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    packs: set[bytes] = field(default_factory=set)
    size: int = 0


class Repair:
    """One repair of ``target``.

    Arguments:
        replicas: all destinations that can be read, the target too.
        held: the snapshots that it holds.
        segments: its index segments that are in good order.
        loaded: the index of all that is in good order anywhere.
        on_copied: called with the target's name and the size of each pack that was put back.

    Attributes:
        done: what has come of it so far.
    """

    def __init__(
        self,
        target: Destination,
        replicas: Mapping[str, Destination],
        held: Sequence[Snapshot],
        segments: Sequence[str],
        loaded: LoadedIndex,
        tools: Tools,
        on_copied: Callable[[str, int], object] | None = None,
    ) -> None:
        self._target = target
        self._replicas = replicas
        self._others = {name: replica for name, replica in replicas.items() if name != target.name}
        self._held = held
        self._segments = segments
        self._loaded = loaded
        self._tools = tools
        self._on_copied = on_copied
        self.done = Repaired()

    async def run(self, tasks: Tasks) -> None:
        """Heals what can be healed. Raises ``DestinationError`` of the target, or ``Fenced``; what was healed until then is."""
        await self._small(tasks)
        await self._clear_notes()
        await self._packs(tasks)
        await self._index(tasks)

    async def _small(self, tasks: Tasks) -> None:
        keyring, target = self._tools.keyring, self._target
        for snapshot in sorted(tasks.commits):
            if not await mend_commit(keyring, target, snapshot, self._replicas):
                self.done.gone.add(snapshot)
        for session in sorted(tasks.sessions):
            if not await mend_session(keyring, target, session):
                reason = "its session has not ended: if its writer is gone, the next prune ends it and removes it later"
                self.done.reasons[f"{names.SESSIONS}{session}/"] = reason
        for snapshot in sorted(tasks.notes):
            if not await mend_note(keyring, target, snapshot):
                self.done.reasons[names.forgotten(snapshot)] = (
                    "nobody can tell whether this snapshot was let go: forget it again, or delete the note by hand (with a full key)"
                )

    async def _clear_notes(self) -> None:
        """Packs that are noted as damaged and are whole: somebody has put them back without taking the note away."""
        for key in await list_keys(self._target, names.DAMAGED):
            pack = names.parse_damaged(key)
            if pack is not None and await is_good(pack, self._target, self._tools):
                await self._target.delete(key)
                self.done.packs.add(pack)

    async def _packs(self, tasks: Tasks) -> None:
        done = await put_back(tasks.packs - self.done.packs, self._target, self._others, self._tools, self._on_copied)
        self.done.packs |= done.packs
        self.done.size += done.size
        self.done.reasons.update({names.pack(pack): str(error) for pack, error in done.failures.items()})
        lost = {pack for pack, error in done.failures.items() if isinstance(error, DamageError)}
        if lost:
            await self._note_damaged(lost)
            await self._say_where_else(lost)

    async def _note_damaged(self, packs: set[bytes]) -> None:
        """So that nobody builds on a copy that is broken and cannot be replaced; exports store again what of it they need."""
        listed = (await list_presence({self._target.name: self._target})).packs.get(self._target.name, {})
        for pack in sorted(packs & listed.keys()):
            if not await is_good(pack, self._target, self._tools):
                key = names.damaged(pack)
                payload = objects.encode(objects.DamagedObject(pack.hex(), objects.now()))
                await self._target.create(key, self._tools.keyring.seal("damaged", key, payload))

    async def _say_where_else(self, lost: set[bytes]) -> None:
        """Whether all that the snapshots here need of a lost pack lies in others here too, through the index."""
        presence = await list_presence({self._target.name: self._target})
        here = presence.packs.get(self._target.name, {}).keys() - lost
        try:
            needed = await lacking(self._held, self._replicas, self._loaded, here, frozenset(), self._tools)
        except SnapferryError:
            return  # Pages are among what is lost.
        for pack in lost - needed:
            self.done.reasons[names.pack(pack)] += (
                "; but all that the snapshots here need of it lies in other packs here too, so nothing is lost, and restores find it"
            )

    async def _index(self, tasks: Tasks) -> None:
        """Broken segments come from elsewhere; what is then named by none gets segments again, and the rest of the broken ones goes."""
        if not (tasks.segments or tasks.index or self.done.packs):
            return
        own, left = set(self._segments), []
        for segment in sorted(tasks.segments):
            size = await copy_segment(segment, self._target, self._others, self._loaded, self._tools)
            self.done.size += size
            if size:
                own.add(segment)
            else:
                left.append(segment)
        going = await being_deleted(self._tools.keyring, self._target)
        listed = (await list_presence({self._target.name: self._target})).packs.get(self._target.name, {})
        packs = listed.keys() - going
        known = {pack for pack in packs if pack not in self._broken_packs()}
        try:
            self.done.size += await name_packs(known, packs, self._target, own, self._others, self._loaded, self._tools)
        except ObjectDamaged as error:
            self.done.reasons[names.INDEX] = str(error)
            return
        # What they said, others say now: a torn segment is nobody's object any more.
        for segment in left:
            await self._target.delete(names.segment(segment))

    def _broken_packs(self) -> set[bytes]:
        return {pack for key in self.done.reasons if (pack := names.parse_pack(key)) is not None}
