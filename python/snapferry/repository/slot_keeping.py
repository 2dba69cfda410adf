"""Key slots at the destinations: looked at, brought to where they are missing, and cleared away where better ones lie.

Who exports brings slots before anything else, so that a destination opens by itself whatever it holds: with every key that counts, and
every epoch that its packs are of. Nothing is ever deleted but by the commands that change keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError, ObjectDamaged
from snapferry.repository import names
from snapferry.repository.gathering import together
from snapferry.repository.opening import SLOT_LIMIT, Members, read_slots
from snapferry.repository.sessions import create_checked
from snapferry.repository.slots import FULL, KeySet, SlotCopy, choose_epoch, copy_of, parse_slots, renew

Failures = dict[str, DestinationError]


async def refresh(members: Members, destinations: Mapping[str, Destination]) -> Failures:
    """Looks again, and takes over what is new of the key in use; returns those that could not be listed.

    Raises:
        AccessDenied: the key in use was removed.
    """
    failures = await look_again(members, destinations)
    renew(members.keyring, members.keys)
    return failures


async def look_again(members: Members, destinations: Mapping[str, Destination]) -> Failures:
    """Lists the slots of some destinations again, into ``members.keys``; returns those that could not be listed."""
    failures: Failures = {}
    known = {copy.name: copy.slot.data for copy in members.keys.copies.values()}

    async def one(name: str) -> KeySet | None:
        try:
            slots, damage = await read_slots(destinations[name], known)
        except DestinationError as error:
            failures[name] = error
            return None
        return parse_slots({name: slots}, members.repository_id, damage)

    for found in await together(one(name) for name in destinations):
        if found is not None:
            members.keys = members.keys.with_destinations(found)
    return failures


async def bring(members: Members, destinations: Mapping[str, Destination]) -> tuple[_core.Keyring, Failures]:
    """Sees that each destination holds every slot that counts, with all epochs that are known here.

    Returns:
        The keys to write with at those destinations, and why others cannot be written to.

    Raises:
        AccessDenied: the key in use was removed.
    """
    async with members.changing:
        failures = await refresh(members, destinations)
        lacking = sealed_again(members.keyring, members.keys) if members.keyring.reads_data else []
        reached = {name: destination for name, destination in destinations.items() if name not in failures}
        failures |= await place_all(members, reached, lacking)
        choose_epoch(members.keyring, members.keys)
        return members.keyring.snapshot(), failures


def sealed_again(keyring: _core.Keyring, keys: KeySet) -> list[SlotCopy]:
    """Copies of the live slots that lack epochs which ``keyring`` has; in the order in which they must be written.

    The slot in use first, so that whoever goes on after a crash knows the new epoch; then the full ones, which must read what is written.
    """
    own, epochs = keyring.slot_id, set(keyring.epochs)
    live = keys.live()
    slots = {
        copy.slot.id: copy.slot for copy in live if not any(copy.slot.id == other.slot.id and epochs <= other.epochs for other in live)
    }
    ordered = sorted(slots.values(), key=lambda slot: (slot.id != own, slot.role != FULL))
    return [copy_of(keyring.seal_again(slot)) for slot in ordered]


async def place_all(members: Members, destinations: Mapping[str, Destination], added: Iterable[SlotCopy]) -> Failures:
    """Creates at each destination the added copies, in this order, and then all others that count and that it does not hold.

    Each is read back. Returns the destinations where that failed; what the others hold is noted in ``members.keys``.
    """
    added = list(added)
    new = {copy.name for copy in added}
    copies = [*added, *(copy for copy in members.keys.with_copies(added).wanted() if copy.name not in new)]
    held = members.keys.held
    failures: Failures = {}

    async def one(name: str) -> None:
        try:
            for copy in copies:
                if copy.name not in held.get(name, ()):
                    await _create(destinations[name], copy)
        except DestinationError as error:
            failures[name] = error

    await together(one(name) for name in destinations)
    done = [name for name in destinations if name not in failures]
    if done:
        members.keys = members.keys.with_copies(copies, done)
    return failures


async def tidy(keys: KeySet, destinations: Mapping[str, Destination]) -> Failures:
    """Deletes at each destination what is superseded or removed, once all that counts lies there; returns those where that failed."""
    failures: Failures = {}

    async def one(name: str) -> None:
        if keys.missing(name):
            return
        try:
            for slot in keys.stale(name):
                await destinations[name].delete(names.key_slot(slot))
        except DestinationError as error:
            failures[name] = error

    await together(one(name) for name in destinations)
    return failures


async def _create(destination: Destination, copy: SlotCopy) -> None:
    key = names.key_slot(copy.name)
    await create_checked(destination, key, copy.slot.data)
    if await destination.read(key, SLOT_LIMIT) != copy.slot.data:
        raise ObjectDamaged(f"{key} does not read back as it was written", destination.name)
