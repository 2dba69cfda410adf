"""The collections of one destination: numbered, one open at a time, each deleting what it has condemned (docs/format.md, "Deletion").

A collection without ``done`` is open: what it condemned is still readable, and nobody may build on it any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.repository import names, objects
from snapferry.repository.small import read_object

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Collections:
    """What is listed below ``collect/``: the newest number (0: none yet), all numbers, and those of the open ones, ascending."""

    newest: int
    all: tuple[int, ...]
    open: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Condemned:
    """What one collection is going to delete, and which sessions had ended and notes been there when it was published."""

    number: int
    packs: frozenset[bytes]
    ended: frozenset[str]
    notes: frozenset[str]


async def list_collections(destination: Destination) -> Collections:
    """Lists them; ``DestinationError`` as the destination raises it."""
    seen: dict[int, set[str]] = {}
    async for info in destination.list(names.COLLECT):
        parsed = names.parse_collection(info.key)
        if parsed:
            seen.setdefault(parsed[0], set()).add(parsed[1])
    return Collections(max(seen, default=0), tuple(sorted(seen)), tuple(sorted(n for n, parts in seen.items() if names.DONE not in parts)))


async def read_condemned(keyring: _core.Keyring, destination: Destination, number: int) -> Condemned:
    """What a collection has condemned. ``ObjectNotFound``, or ``ObjectDamaged``: then nothing at that destination may be built on."""
    key = names.condemned(number)
    found = objects.decode(objects.CondemnedObject, await read_object(keyring, destination, "condemned", key, objects.CONDEMNED_LIMIT), key)
    if found.collection != number or len(found.packs) % 32:
        raise ObjectDamaged(f"{key}: it makes no sense", destination.name)
    packs = frozenset(found.packs[at : at + 32] for at in range(0, len(found.packs), 32))
    return Condemned(number, packs, frozenset(found.ended), frozenset(found.notes))


async def condemned_now(keyring: _core.Keyring, destination: Destination) -> tuple[int, frozenset[bytes]]:
    """(newest collection, all packs that open ones have condemned)."""
    for attempt in range(_TRIES):
        found = await list_collections(destination)
        try:
            condemned = [await read_condemned(keyring, destination, number) for number in found.open]
        except ObjectNotFound:
            # It was open when it was listed, and is done and tidied away by now; unless what is listed is not there at all.
            if attempt == _TRIES - 1:
                raise
            continue
        return found.newest, frozenset().union(*(item.packs for item in condemned))
    raise AssertionError("unreachable")


async def publish(keyring: _core.Keyring, destination: Destination, condemned: Condemned) -> bool:
    """Opens a collection of that number; False if somebody else has."""
    key = names.condemned(condemned.number)
    described = objects.CondemnedObject(
        condemned.number, objects.now(), b"".join(sorted(condemned.packs)), sorted(condemned.ended), sorted(condemned.notes)
    )
    data = keyring.seal("condemned", key, objects.encode(described))
    if await destination.create(key, data):
        return True
    try:
        # An earlier try of ours, whose reply was lost.
        return await destination.read(key, objects.CONDEMNED_LIMIT) == data
    except (ObjectNotFound, ObjectDamaged):
        return False


async def conclude(keyring: _core.Keyring, destination: Destination, number: int) -> None:
    """Says that a collection has deleted what it condemned. Two who conclude one collection say the same."""
    key = names.done(number)
    await destination.create(key, keyring.seal("done", key, objects.encode(objects.DoneObject(number, objects.now()))))


async def forget_older(destination: Destination, numbers: Iterable[int], newest: int) -> None:
    """Deletes the objects of collections before ``newest``, which must all be done: what they condemned first, lest one look open again."""
    for number in numbers:
        if number < newest:
            await destination.delete(names.condemned(number))
            await destination.delete(names.done(number))
