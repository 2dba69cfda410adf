"""The keys of one open repository, for those who look after them: list, add, remove, rotate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from snapferry.destination import Destination
from snapferry.engine.membership import Membership
from snapferry.errors import ConfigurationError
from snapferry.repository import key_changes
from snapferry.repository.failures import combined
from snapferry.repository.keyfile import create_key_file, read_key_file, read_public_key
from snapferry.repository.secret import Secret, read_passphrase_file
from snapferry.repository.slot_keeping import look_again, refresh
from snapferry.repository.slots import FULL, WRITE_ONLY
from snapferry.types import KeyChange, KeySlot

Path = str | os.PathLike[str]


class Keys:
    """Reached as ``Repository.keys``. What changes something does so at every destination that can be written to.

    Each change raises AccessDenied for a key that can write and not read, and the destinations' errors if it could be made nowhere;
    made in part, it returns with ``failures``.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    @property
    def repository(self) -> str:
        """The repository's id, which the holder of a public key needs to be sure of it."""
        return self._membership.members.repository_id

    async def list(self) -> tuple[KeySlot, ...]:
        """The keys that open the repository, oldest first."""
        members = self._membership.members
        async with members.changing:
            failures = await look_again(members, members.replicas)
        if len(failures) == len(members.replicas):
            raise combined("no destination can be listed", failures)
        keys, slots = members.keys, {}
        everything = {tag for copy in keys.live() for tag in copy.epochs}
        for copy in keys.live():
            slot = copy.slot
            slots[slot.id] = KeySlot(
                id=slot.id.hex(),
                kind=slot.kind,
                role=slot.role,
                label=slot.label,
                created=datetime.fromtimestamp(slot.created, UTC),
                epoch=max(other.slot.epoch for other in keys.live() if other.slot.id == slot.id),
                up_to_date=keys.epochs_of(slot.id) == everything,
                in_use=slot.id == members.keyring.slot_id,
                destinations=tuple(name for name in members.replicas if self._holds(slot.id, name)),
            )
        return tuple(slots.values())

    def _holds(self, slot_id: bytes, destination: str) -> bool:
        keys = self._membership.members.keys
        return any(keys.copies[name].slot.id == slot_id for name in keys.held.get(destination, ()))

    async def add(
        self,
        *,
        key_file: Path | None = None,
        passphrase_file: Path | None = None,
        public_key: str | None = None,
        write_only: bool = False,
        label: str = "",
        dry_run: bool = False,
    ) -> KeyChange:
        """Adds a key.

        Arguments:
            key_file: made, with a new key, if it is not there.
            passphrase_file: holds the passphrase.
            public_key: of a key file on another host, as text or the name of a file that holds it. One of these three must be given.
            write_only: the key makes snapshots and reads none.
            label: for people; at most 128 bytes, readable by whoever can list the destinations.

        Raises:
            ConfigurationError: not one of the three, or one that is unusable. AccessDenied: the key file or passphrase cannot be used.
            SnapferryError: it opens the repository already.
        """
        if sum(value is not None for value in (key_file, passphrase_file, public_key)) != 1:
            raise ConfigurationError("a key is added with one of: a key file, a passphrase file, a public key")
        key_changes.check_manages(self._membership.members.keyring)
        key_changes.check_label(label)
        new_file = key_file is not None and not os.path.lexists(key_file)
        secret: Secret | None = None
        if passphrase_file is not None:
            secret = read_passphrase_file(passphrase_file)
        elif key_file is not None and not new_file:
            secret = read_key_file(key_file)
        public = None if public_key is None else read_public_key(public_key)
        async with self._changing(dry_run=dry_run) as (destinations, failures):
            members = self._membership.members
            await asyncio.to_thread(key_changes.check_new, members.keys, secret, public)
            if dry_run:
                return self._result(None, destinations, failures, dry_run=True)
            if new_file and key_file is not None:
                secret = create_key_file(key_file)
            role = WRITE_ONLY if write_only else FULL
            copy = await asyncio.to_thread(key_changes.new_slot, members.keyring, role, label, secret, public)
            failures |= await key_changes.add(members, destinations, copy)
            return self._result(copy.slot.id, destinations, failures)

    async def remove(self, slot: str, *, dry_run: bool = False) -> KeyChange:
        """Removes a key: an id, 8 or more digits of one, or a label.

        Who has had it may have kept what it opens. ``rotate`` afterwards, so that what is written from then on is closed to them.

        Raises:
            SnapferryError: there is no such key, or it is the last full one.
        """
        members = self._membership.members
        key_changes.check_manages(members.keyring)
        async with self._changing(dry_run=dry_run) as (destinations, failures):
            found = key_changes.find_slot(members.keys, slot)
            key_changes.check_removal(members.keys, found)
            if not dry_run:
                failures |= await key_changes.remove(members, destinations, found)
            return self._result(found.id, destinations, failures, dry_run=dry_run)

    async def rotate(self, *, dry_run: bool = False) -> KeyChange:
        """Begins a new key epoch, under which data is written from now on; every key that is there learns it, none is asked for."""
        members = self._membership.members
        key_changes.check_manages(members.keyring)
        async with self._changing(dry_run=dry_run) as (destinations, failures):
            if not dry_run:
                failures |= await key_changes.rotate(members, destinations)
            return self._result(None, destinations, failures, dry_run=dry_run)

    @asynccontextmanager
    async def _changing(self, *, dry_run: bool) -> AsyncIterator[tuple[Mapping[str, Destination], dict[str, BaseException]]]:
        """The destinations that can be changed, their slots looked at again; and why the others cannot. One change at a time."""
        membership = self._membership
        wanted = [destination.name for destination in membership.config.destinations]
        async with AsyncExitStack() as stack, membership.members.changing:
            failures: dict[str, BaseException] = {}
            if dry_run:
                problems = {**membership.members.unwritable, **membership.members.failures}
                failures.update({name: problems[name] for name in wanted if name in problems})
                opened = {name: membership.replicas[name] for name in wanted if name not in failures}
            else:
                opened, failures = await membership.writable(wanted, stack)
            unlisted = await refresh(membership.members, {**membership.replicas, **opened})
            failures.update({name: error for name, error in unlisted.items() if name in opened})
            usable = {name: destination for name, destination in opened.items() if name not in failures}
            if not usable:
                raise combined("the keys can be changed at no destination; nothing was changed", failures)
            yield usable, failures

    def _result(
        self, slot: bytes | None, destinations: Iterable[str], failures: dict[str, BaseException], *, dry_run: bool = False
    ) -> KeyChange:
        members = self._membership.members
        order = [destination.name for destination in self._membership.config.destinations]
        return KeyChange(
            slot=None if slot is None else slot.hex(),
            epoch=int.from_bytes((members.keyring.current_epoch or b"")[:4], "little"),
            slots=len({copy.slot.id for copy in members.keys.live()}),
            changed=tuple(name for name in order if name in destinations and name not in failures),
            failures={name: failures[name] for name in order if name in failures},
            dry_run=dry_run,
        )
