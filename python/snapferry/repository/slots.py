"""The key slots of a repository: which copies count, what every destination should hold, and what a secret opens.

Slots are objects that are created and deleted, never changed, and a destination that was away may hold old ones. What counts follows
from what all destinations together hold, whatever the order in which it came there (docs/format.md, "Keys"):

- a note that a slot was removed supersedes every copy of it; but notes that would leave nobody with a full key count for nothing;
- a copy is superseded by one of the same slot with all of its epochs and more; of equals the one with the lesser name stays;
- an epoch is written under once every full slot that counts has it; so a rotation that stopped half-way endangers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from snapferry import _core
from snapferry.errors import AccessDenied
from snapferry.repository import names
from snapferry.repository.secret import Passphrase, Secret
from snapferry.types import Damage

MOST_STRETCHED = 8
"""Passphrase slots that one passphrase is tried on: each may take seconds and a GiB."""

FULL, WRITE_ONLY, REMOVED = "full", "write-only", "removed"


@dataclass(frozen=True, slots=True)
class SlotCopy:
    """One slot object: its name (32 hex digits), and what it says."""

    name: str
    slot: _core.Slot = field(compare=False)

    @property
    def epochs(self) -> frozenset[bytes]:
        """The tags of the epochs in it."""
        return frozenset(self.slot.epochs)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The slot objects of one repository in good order.

    Attributes:
        copies: by name, wherever they lie.
        held: by destination, the names of those it holds.
        damage: what was found broken, or was another repository's.
    """

    copies: Mapping[str, SlotCopy] = field(default_factory=dict)
    held: Mapping[str, frozenset[str]] = field(default_factory=dict)
    damage: tuple[Damage, ...] = ()

    def live(self) -> list[SlotCopy]:
        """The copies that open the repository, by time and id of their slots; of one slot more than one where neither has all epochs."""
        gone = self.removed()
        return [copy for copy in self._ordered() if copy.slot.id not in gone and copy.slot.role != REMOVED and not self._superseded(copy)]

    def removed(self) -> set[bytes]:
        """The ids of the slots that were removed."""
        noted = {copy.slot.id for copy in self.copies.values() if copy.slot.role == REMOVED}
        full = {copy.slot.id for copy in self.copies.values() if copy.slot.role == FULL}
        return noted if full - noted else noted - full

    def wanted(self) -> list[SlotCopy]:
        """What every destination should hold: the live copies, and one note of each removal that counts."""
        gone = self.removed()
        notes = {copy.slot.id: copy for copy in reversed(self._ordered()) if copy.slot.role == REMOVED and copy.slot.id in gone}
        return [*self.live(), *notes.values()]

    def missing(self, destination: str) -> list[SlotCopy]:
        """What a destination should hold and does not."""
        return [copy for copy in self.wanted() if copy.name not in self.held.get(destination, ())]

    def stale(self, destination: str) -> list[str]:
        """The names of what a destination holds and should not."""
        return sorted(self.held.get(destination, frozenset()) - {copy.name for copy in self.wanted()})

    def slot(self, slot_id: bytes | None) -> _core.Slot | None:
        """The live slot of that id."""
        return next((copy.slot for copy in self.live() if copy.slot.id == slot_id), None)

    def full_slots(self) -> set[bytes]:
        """The ids of the live slots that open everything."""
        return {copy.slot.id for copy in self.live() if copy.slot.role == FULL}

    def copies_of(self, slot_id: bytes) -> list[SlotCopy]:
        """All copies of a slot, superseded ones too: of a write-only one each has the key of one epoch alone."""
        return [copy for copy in self._ordered() if copy.slot.id == slot_id and copy.slot.role != REMOVED]

    def epochs_of(self, slot_id: bytes) -> frozenset[bytes]:
        """What the live copies of a slot hold together."""
        return frozenset(tag for copy in self.live() if copy.slot.id == slot_id for tag in copy.epochs)

    def readable_epochs(self) -> list[list[bytes]]:
        """Tags of the epochs that every full slot has, and then of those that any has."""
        sets = [self.epochs_of(slot_id) for slot_id in self.full_slots()]
        if not sets:
            return []
        return [sorted(frozenset.intersection(*sets)), sorted(frozenset.union(*sets))]

    def with_copies(self, added: Iterable[SlotCopy], at: Iterable[str] = ()) -> KeySet:
        """This set, with some more copies, which the destinations ``at`` hold."""
        added = list(added)
        names_added = frozenset(copy.name for copy in added)
        held = dict(self.held) | {name: self.held.get(name, frozenset()) | names_added for name in at}
        return KeySet({**self.copies, **{copy.name: copy for copy in added}}, held, self.damage)

    def with_destinations(self, other: KeySet) -> KeySet:
        """This set, with what ``other`` says of its destinations in the place of what is known here."""
        held = {**self.held, **other.held}
        copies = {**self.copies, **other.copies}
        used = frozenset[str]().union(*held.values())
        damage = tuple(item for item in self.damage if item.destination not in other.held)
        return KeySet({name: copy for name, copy in copies.items() if name in used}, held, (*damage, *other.damage))

    def _ordered(self) -> list[SlotCopy]:
        return sorted(self.copies.values(), key=lambda copy: (copy.slot.created, copy.slot.id, copy.name))

    def _superseded(self, copy: SlotCopy) -> bool:
        mine = copy.epochs
        return any(
            mine < other.epochs or (mine == other.epochs and other.name < copy.name)
            for other in self.copies.values()
            if other.slot.id == copy.slot.id and other.slot.role != REMOVED and other.name != copy.name
        )


def copy_of(data: bytes) -> SlotCopy:
    """A slot object as a copy; ``_core.CoreError`` if it is none."""
    return SlotCopy(_core.blake3(data)[:16].hex(), _core.Slot(data))


def parse_slots(found: Mapping[str, Mapping[str, bytes]], repository_id: str, damage: Iterable[Damage] = ()) -> KeySet:
    """The key set of one repository (32 hex digits) out of what destinations hold: by destination, name to bytes."""
    copies: dict[str, SlotCopy] = {}
    held: dict[str, frozenset[str]] = {}
    problems = list(damage)
    for destination, objects in found.items():
        good: set[str] = set()
        for name, data in objects.items():
            problem = None
            if _core.blake3(data)[:16].hex() != name:
                problem = "torn or altered: its bytes are not what its name says"
            elif name not in copies:
                try:
                    slot = _core.Slot(data)
                except _core.CoreError as error:
                    problem = str(error)
                else:
                    if slot.repository_id.hex() == repository_id:
                        copies[name] = SlotCopy(name, slot)
                    else:
                        problem = f"a key slot of another repository, {slot.repository_id.hex()}"
            if problem is None:
                good.add(name)
            else:
                problems.append(Damage(destination, names.key_slot(name), problem))
        held[destination] = frozenset(good)
    return KeySet(copies, held, tuple(problems))


def unlock(keys: KeySet, secret: Secret, where: str) -> _core.Keyring:
    """The keys that ``secret`` opens, with the epochs of all copies of its slot. A passphrase takes time and memory: call it in a thread.

    Raises:
        AccessDenied: it opens no slot, or one that was removed; or no slot is left in good order.
    """
    live = keys.live()
    for copy in _candidates(live, secret):
        key = _key_of(copy.slot, secret)
        if key is not None:
            return _open(keys, copy.slot.id, key, where)
    gone = keys.removed()
    for copy in _candidates([copy for copy in keys.copies.values() if copy.slot.id in gone], secret):
        if _key_of(copy.slot, secret) is not None:
            raise AccessDenied(f"this {kind_of(secret)} was removed from the repository at {where} (slot {copy.slot.id.hex()})")
    if live:
        raise AccessDenied(_refusal(live, secret, where))
    if keys.damage:
        broken = "; ".join(f"{item.destination}: {item.object}: {item.reason}" for item in keys.damage)
        raise AccessDenied(f"no usable key slot at {where}: {broken}")
    raise AccessDenied(f"no key slot is left at {where}; without one nobody can open the repository")


def _refusal(live: Iterable[SlotCopy], secret: Secret, where: str) -> str:
    count = len({copy.slot.id for copy in live if copy.slot.kind == "passphrase"})
    if not isinstance(secret, Passphrase):
        return f"the key file opens none of the key slots at {where}: it is another repository's, or was removed from this one"
    if not count:
        return f"the passphrase opens none of the key slots at {where}: none of them is a passphrase's"
    tried = f"the {MOST_STRETCHED} oldest of {count} passphrase slots were tried" if count > MOST_STRETCHED else f"{count} tried"
    return f"the passphrase is wrong: it opens none of the passphrase slots at {where} ({tried})"


def _open(keys: KeySet, slot_id: bytes, key: _core.SlotKey, where: str) -> _core.Keyring:
    """The keys in all copies of a slot. One that is broken inside is passed over if another is not."""
    keyring: _core.Keyring | None = None
    problem: _core.CoreError | None = None
    for copy in keys.copies_of(slot_id):
        try:
            if keyring is None:
                keyring = _core.Keyring.unlock(copy.slot, key)
            else:
                keyring.adopt(copy.slot)
        except _core.CoreError as error:
            problem = error
    if keyring is None:
        raise AccessDenied(f"slot {slot_id.hex()} at {where} cannot be opened: {problem}") from problem
    choose_epoch(keyring, keys)
    return keyring


def renew(keyring: _core.Keyring, keys: KeySet) -> None:
    """Takes over what other copies of the slot in use have brought since it was opened.

    Raises:
        AccessDenied: the slot in use was removed.
    """
    own = keyring.slot_id
    if own is None:
        return
    if own in keys.removed():
        raise AccessDenied(f"the key in use was removed from the repository (slot {own.hex()})")
    for copy in keys.copies_of(own):
        keyring.adopt(copy.slot)
    choose_epoch(keyring, keys)


def choose_epoch(keyring: _core.Keyring, keys: KeySet) -> None:
    """Writes from now on under the newest epoch that every full key reads; if there is none, under the newest that any does.

    Raises:
        AccessDenied: no full key could read what would be written.
    """
    choices = keys.readable_epochs()
    if not choices or any(keyring.choose_epoch(tags) for tags in choices):
        return
    raise AccessDenied("no full key of the repository could read what this key writes; run `snapferry key rotate` with a full key")


def kind_of(secret: Secret) -> str:
    """The word for what a secret is."""
    return "passphrase" if isinstance(secret, Passphrase) else "key file"


def fitting_slot(keys: KeySet, secret: Secret) -> _core.Slot | None:
    """The live slot that ``secret`` opens already, if there is one."""
    return next((copy.slot for copy in _candidates(keys.live(), secret) if _key_of(copy.slot, secret) is not None), None)


def _candidates(copies: Iterable[SlotCopy], secret: Secret) -> list[SlotCopy]:
    """One copy of each slot that such a secret can open; of passphrase slots only so many, the oldest first."""
    first = {copy.slot.id: copy for copy in copies if (copy.slot.kind == "passphrase") == isinstance(secret, Passphrase)}
    return list(first.values())[: MOST_STRETCHED if isinstance(secret, Passphrase) else None]


def _key_of(slot: _core.Slot, secret: Secret) -> _core.SlotKey | None:
    try:
        return slot.unlock(passphrase=secret.data) if isinstance(secret, Passphrase) else slot.unlock(key_file=secret)
    except _core.CoreError:
        return None  # Not made for this repository by whoever keeps the secret: as good as another one's.
    except ValueError as error:
        raise AccessDenied(f"key slot {slot.id.hex()} cannot be tried: {error}") from error
