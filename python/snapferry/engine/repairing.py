"""A repair: what a verification finds is healed at each destination, and looked at again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.engine.pruning import open_finished
from snapferry.engine.syncing import Syncing
from snapferry.engine.verifying import Looked, look_at
from snapferry.errors import SnapferryError
from snapferry.lifecycle.repair import Repair, Repaired
from snapferry.lifecycle.repairing import Tasks, came_of, could_heal, tasks_of
from snapferry.repository import names
from snapferry.repository.attaching import is_ours, put_config, renew_identity
from snapferry.repository.gathering import together
from snapferry.repository.sessions import create_checked
from snapferry.repository.slot_keeping import bring
from snapferry.types import Damage, Progress, ProgressCallback, RepairResult

_ROUNDS = 3
"""What is put back may show more that is broken: a commit, say, whose packs are missing too."""


class Repairing:
    """One repair, as ``Repository.repair`` describes it, of the destinations of the names ``wanted``."""

    def __init__(
        self,
        membership: Membership,
        memory: Memory,
        wanted: Sequence[str],
        snapshots: Sequence[str] | None,
        read_data: float,
        on_progress: ProgressCallback | None,
    ) -> None:
        self._membership = membership
        self._memory = memory
        self._wanted = tuple(wanted)
        self._snapshots = snapshots
        self._read_data = read_data
        self._on_progress = on_progress
        self._copied: dict[str, int] = {}
        self._stored = 0
        self._failed: dict[str, str] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self._put_back: set[tuple[str, str]] = set()

    async def run(self, *, dry_run: bool) -> RepairResult:
        """Repairs; see ``Repository.repair``."""
        begun = time.monotonic()
        if dry_run:
            found = await self._look(self._wanted, self._read_data)
            could = tuple(item for item in found.result.damage if could_heal(item))
            not_so = tuple(item for item in found.result.damage if not could_heal(item))
            return RepairResult(could, not_so, found.result.unverified, 0, time.monotonic() - begun, dry_run=True)
        doors = await self._doors()
        found = await self._look(self._wanted, self._read_data)
        first = now = (*doors, *found.result.damage)
        unverified = dict(found.result.unverified)
        for _ in range(_ROUNDS):
            tasks = tasks_of(now)
            if not tasks:
                break
            self._failed.clear()
            self._reasons = {at: why for at, why in self._reasons.items() if at[1] in (names.CONFIG, names.DESTINATION)}
            async with AsyncExitStack() as stack:
                opened = await self._opened(tasks, stack)
                await together(self._destination(opened[name], tasks[name], found) for name in opened)
            if not opened:
                break
            again = tuple(tasks) if self._snapshots is None else self._wanted
            before, found = now, await self._look(again, 0.0)
            now = self._still(before, found)
            unverified.update(found.result.unverified)
            if {(item.destination, item.object) for item in now} == {(item.destination, item.object) for item in before}:
                break
        healed, left = came_of(first, map(self._explained, now))
        for name in self._wanted:
            await self._memory.note_healed(name, [item.object for item in healed if item.destination == name])
        unverified = {name: self._failed.get(name) or reason for name, reason in {**unverified, **self._failed}.items()}
        return RepairResult(healed, left, unverified, self._stored, time.monotonic() - begun)

    async def _look(self, wanted: Sequence[str], read_data: float) -> Looked:
        return await look_at(self._membership, self._memory, wanted, self._snapshots, read_data, self._on_progress)

    def _still(self, before: Iterable[Damage], found: Looked) -> tuple[Damage, ...]:
        """What is found now; and of what was found before, what this look does not show: at places that it did not come to, or inside of packs."""
        seen = {(item.destination, item.object) for item in found.result.damage}

        def left(item: Damage) -> bool:
            at = item.destination, item.object
            inside = names.parse_pack(item.object) in found.presence.packs.get(item.destination, {}) and at not in self._put_back
            looked = item.destination in found.segments and item.destination not in found.result.unverified
            return at not in seen and (not looked or at in self._reasons or inside)

        return (*found.result.damage, *filter(left, before))

    def _explained(self, item: Damage) -> Damage:
        session = names.parse_session(item.object)
        keys = [item.object] + ([f"{names.SESSIONS}{session[0]}/"] if session else [])
        why = next((self._reasons[item.destination, key] for key in keys if (item.destination, key) in self._reasons), None)
        why = why or self._failed.get(item.destination)
        return item if why is None else dataclasses.replace(item, reason=f"{item.reason}; not healed: {why}")

    async def _doors(self) -> list[Damage]:
        """Places that do not open as this repository for want of their ``config`` or ``destination``, and that are its own, are put in order."""
        members, found = self._membership.members, []
        for name in self._wanted:
            error = members.failures.get(name)
            broken = [item for item in members.damage if (item.destination, item.object) == (name, names.DESTINATION)]
            if broken or (error is not None and error.exit_code == 10):
                finding = broken[0] if broken else Damage(name, names.CONFIG, str(error))
                try:
                    await self._open_door(name, finding.object)
                except SnapferryError as problem:
                    self._reasons[name, finding.object] = str(problem)
                found.append(finding)
        return found

    async def _open_door(self, name: str, door: str) -> None:
        membership = self._membership
        async with AsyncExitStack() as stack:
            place = await membership.raw(name, stack)
            if door == names.CONFIG:
                if not await is_ours(membership.members, place):
                    raise SnapferryError(
                        f"nothing at {place.url} proves that it is this repository's; `snapferry destination add` makes it one"
                    )
                await put_config(membership.members, place)
            else:
                await renew_identity(membership.members, place)
        await membership.admit(name)

    async def _opened(self, tasks: Mapping[str, Tasks], stack: AsyncExitStack) -> dict[str, Destination]:
        """Those that can be written to, with all key slots that count."""
        members = self._membership.members
        opened, failures = await open_finished(self._membership, tuple(tasks), stack)
        if opened:
            _, refused = await bring(members, opened)
            failures.update(refused)
            opened = {name: destination for name, destination in opened.items() if name not in refused}
            for name, destination in opened.items():
                await self._mend_slots(name, destination, tasks[name].slots)
        self._failed.update({name: str(error) for name, error in failures.items() if (name, names.CONFIG) not in self._reasons})
        return opened

    async def _mend_slots(self, name: str, destination: Destination, slots: Iterable[str]) -> None:
        """Broken slot objects are replaced, or go if they are superseded; one that is whole nowhere stays, since it may be somebody's last."""
        keys = self._membership.members.keys
        wanted = {copy.name for copy in keys.wanted()}
        for key in slots:
            slot = names.parse_key_slot(key)
            if slot in keys.copies and slot in wanted:
                await create_checked(destination, key, keys.copies[slot].slot.data)
            elif slot in keys.copies:
                await destination.delete(key)
            elif slot is not None:
                self._reasons[name, key] = "no destination has it in good order; add the key again, and delete this object by hand"

    async def _destination(self, destination: Destination, tasks: Tasks, found: Looked) -> None:
        name, membership = destination.name, self._membership
        repair = Repair(
            destination, {**membership.replicas, name: destination}, found.held.get(name, ()), found.segments.get(name, ()),
            found.loaded, membership.tools, self._progress,
        )  # fmt: skip
        done = repair.done
        try:
            await repair.run(tasks)
            await self._memory.note_healed(name, map(names.pack, done.packs))
            if done.gone:
                await self._bring_back(name, done)
        except SnapferryError as error:
            self._failed[name] = str(error)
        finally:
            self._put_back.update((name, names.pack(pack)) for pack in done.packs)
            self._stored += done.size
            self._reasons.update({(name, key): reason for key, reason in done.reasons.items()})

    async def _bring_back(self, name: str, done: Repaired) -> None:
        """Snapshots that were lost here altogether are brought from the others, as a sync does."""
        syncing = Syncing(self._membership, self._memory, [name], None, None, dry_run=False)
        for item in (await syncing.run(sorted(done.gone), ())).destinations:
            done.size += item.bytes_copied
            done.reasons.update({names.snapshot(key): str(error) for key, error in item.failures.items()})

    def _progress(self, name: str, size: int) -> None:
        self._copied[name] = self._copied.get(name, 0) + size
        if self._on_progress is not None:
            self._on_progress(Progress("repair", name, self._copied[name], None, dict(self._copied)))
