"""What the ``key`` commands do to the slots of all destinations: add one, remove one, begin a new epoch.

Each is new objects first and deletions last, so that a crash at any point leaves a repository that every key opens which did before, or
that was added; running the same command again finishes. Those who write choose an epoch that every full key reads (``slots.choose_epoch``),
so that a rotation which stopped half-way endangers nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import AccessDenied, ConfigurationError, DestinationError, Fenced, SnapferryError
from snapferry.repository import names
from snapferry.repository.failures import combined
from snapferry.repository.gathering import together
from snapferry.repository.opening import Members
from snapferry.repository.secret import Passphrase, Secret
from snapferry.repository.slot_keeping import Failures, look_again, place_all, sealed_again, tidy
from snapferry.repository.slots import KeySet, SlotCopy, copy_of, fitting_slot, kind_of, renew

_PREFIX = re.compile(r"[0-9a-f]{8,32}")


def check_manages(keyring: _core.Keyring) -> None:
    """``AccessDenied`` for a key that may only write."""
    if not keyring.reads_data:
        raise AccessDenied("this key can write and not read: keys are changed with a full key only")


def check_label(label: str) -> None:
    """``ConfigurationError`` for a label that no slot can have."""
    if len(label.encode(errors="replace")) > _core.MAX_LABEL_LENGTH or not label.isprintable():
        raise ConfigurationError(f"a label has at most {_core.MAX_LABEL_LENGTH} bytes, and no control characters")


def find_slot(keys: KeySet, wanted: str) -> _core.Slot:
    """The live slot of that id, 8 or more digits of it, or that label.

    Raises:
        SnapferryError: there is none, or more than one.
    """
    slots = {copy.slot.id: copy.slot for copy in keys.live()}.values()
    found = [slot for slot in slots if _PREFIX.fullmatch(wanted) and slot.id.hex().startswith(wanted)]
    found = found or [slot for slot in slots if wanted and slot.label == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise SnapferryError(
            f"{wanted} is ambiguous: it is the name of {len(found)} key slots: {', '.join(slot.id.hex() for slot in found)}"
        )
    raise SnapferryError(f"no key slot is called {wanted!r}; `snapferry key list` shows them all")


def new_slot(keyring: _core.Keyring, role: str, label: str, secret: Secret | None, public_key: bytes | None) -> SlotCopy:
    """A new slot for a secret, or for the holder of the private half of a public key. A passphrase takes its time.

    Raises:
        AccessDenied: the keyring is write-only. ConfigurationError: the label, or a public key that no key pair has.
    """
    check_manages(keyring)
    check_label(label)
    created = int(time.time())
    try:
        if public_key is not None:
            data = keyring.new_slot(role, label, created, public_key=public_key)
        elif isinstance(secret, Passphrase):
            data = keyring.new_slot(role, label, created, passphrase=secret.data)
        else:
            data = keyring.new_slot(role, label, created, key_file=secret)
    except _core.DamagedError as error:
        raise ConfigurationError(f"the public key cannot be used: {error}") from error
    return copy_of(data)


def check_new(keys: KeySet, secret: Secret | None, public_key: bytes | None) -> None:
    """``SnapferryError`` if a live slot is that secret's or public key's already."""
    if public_key is not None:
        known = next((copy.slot for copy in keys.live() if copy.slot.public_key == public_key), None)
    else:
        known = None if secret is None else fitting_slot(keys, secret)
    if known is not None:
        what = "public key" if secret is None else kind_of(secret)
        raise SnapferryError(f"this {what} opens the repository already, with slot {known.id.hex()} ({known.role}); remove that one first")


def check_removal(keys: KeySet, slot: _core.Slot) -> None:
    """``SnapferryError`` if nobody would be left with a full key."""
    if keys.full_slots() == {slot.id}:
        raise SnapferryError(
            f"slot {slot.id.hex()} is the last full key: without it nobody could read the repository; add another full key first"
        )


async def add(members: Members, destinations: Mapping[str, Destination], copy: SlotCopy) -> Failures:
    """Adds a slot at all destinations; returns those where it is missing. Raises as ``_spread``."""
    failures = await _spread(members, destinations, [copy])
    return failures | await _tidy(members, destinations, failures)


async def rotate(members: Members, destinations: Mapping[str, Destination]) -> Failures:
    """Begins an epoch: every live slot is sealed anew with it, then the old copies go. Returns where that was not done, or not in full.

    Raises:
        As ``_spread``: no destination has all of it, and what is written goes on under the old epoch.
    """
    check_manages(members.keyring)
    copies = sealed_again(_next_epoch(members.keyring), members.keys)
    failures = await _spread(members, destinations, copies)
    renew(members.keyring, members.keys)
    return failures | await _tidy(members, destinations, failures)


async def remove(members: Members, destinations: Mapping[str, Destination], slot: _core.Slot) -> Failures:
    """Notes the removal at all destinations, and deletes the slot's copies. Returns where that was not done, or not in full.

    Raises:
        SnapferryError: it is the last full slot. Fenced: another command removed the only other one at the same moment; neither is removed.
        As ``_spread``.
    """
    check_manages(members.keyring)
    check_removal(members.keys, slot)
    note = copy_of(members.keyring.remove(slot))
    failures = await _spread(members, destinations, [note])
    noted = {name: destination for name, destination in destinations.items() if name not in failures}
    failures |= await look_again(members, noted)
    if slot.id not in members.keys.removed():
        await together(_withdraw(destination, note) for destination in noted.values())
        raise Fenced("another command has removed the only other full key at the same moment; nothing was removed, so try again")
    return failures | await _tidy(members, destinations, failures)


def _next_epoch(keyring: _core.Keyring) -> _core.Keyring:
    try:
        return keyring.with_new_epoch()
    except ValueError as error:
        raise SnapferryError(str(error)) from error


async def _spread(members: Members, destinations: Mapping[str, Destination], copies: list[SlotCopy]) -> Failures:
    """Places new copies, and all others that count, at all destinations.

    Raises:
        The destinations' errors combined, if none has taken everything.
    """
    failures = await place_all(members, destinations, copies)
    if len(failures) == len(destinations):
        raise combined("the keys were changed at no destination", failures)
    return failures


async def _tidy(members: Members, destinations: Mapping[str, Destination], failures: Failures) -> Failures:
    keys = members.keys
    failed = await tidy(keys, {name: destination for name, destination in destinations.items() if name not in failures})
    gone = {name: frozenset(keys.stale(name)) for name in destinations if name not in failures and name not in failed}
    held = {name: names_held - gone.get(name, frozenset()) for name, names_held in keys.held.items()}
    members.keys = keys.with_destinations(KeySet(keys.copies, held))
    return failed


async def _withdraw(destination: Destination, note: SlotCopy) -> None:
    try:
        await destination.delete(names.key_slot(note.name))
    except DestinationError:
        return  # Two notes that leave nobody a full key count for nothing.
