"""The collections of one destination: numbered, each deleting what it has condemned (docs/format.md, "Deletion").

Only the newest number counts: it is open until it is done. A number below it is void, whatever is there of it: somebody who slept through
the newer ones made it. What an open collection has condemned is still readable, and nobody builds on it any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.repository import names, objects
from snapferry.repository.small import read_object

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Collections:
    """What is listed below ``collect/``: the newest number (0: none yet), which parts of it are there, and all keys by number."""

    newest: int
    parts: frozenset[str]
    keys: dict[int, list[str]]

    @property
    def open(self) -> bool:
        """Whether the newest has something left to delete."""
        return bool(self.newest) and names.DONE not in self.parts


@dataclass(frozen=True, slots=True)
class Condemned:
    """What one collection may delete, and which sessions had ended when it was published."""

    number: int
    packs: frozenset[bytes]
    ended: frozenset[str]


async def list_collections(destination: Destination) -> Collections:
    """Lists them; ``DestinationError`` as the destination raises it."""
    keys: dict[int, list[str]] = {}
    parts: dict[int, set[str]] = {}
    async for info in destination.list(names.COLLECT):
        parsed = names.parse_collection(info.key)
        if parsed:
            keys.setdefault(parsed[0], []).append(info.key)
            parts.setdefault(parsed[0], set()).add(parsed[1])
    newest = max(parts, default=0)
    return Collections(newest, frozenset(parts.get(newest, ())), keys)


async def read_condemned(keyring: _core.Keyring, destination: Destination, number: int) -> Condemned:
    """What a collection has condemned. ``ObjectNotFound``, or ``ObjectDamaged``: then nothing at that destination may be built on."""
    key = names.collection(number, names.CONDEMNED)
    found = objects.decode(objects.CondemnedObject, await read_object(keyring, destination, "condemned", key, objects.CONDEMNED_LIMIT), key)
    return Condemned(number, _packs(found.packs, found.collection == number, key, destination), frozenset(found.ended))


async def read_delete(keyring: _core.Keyring, destination: Destination, number: int) -> frozenset[bytes]:
    """The packs that a collection deletes, once that is decided. Raises as ``read_condemned``."""
    key = names.collection(number, names.DELETE)
    found = objects.decode(objects.DeleteObject, await read_object(keyring, destination, "delete", key, objects.CONDEMNED_LIMIT), key)
    return _packs(found.packs, found.collection == number, key, destination)


async def packs_to_avoid(keyring: _core.Keyring, destination: Destination) -> tuple[int, frozenset[bytes]]:
    """(newest collection, packs that nobody may build on or put there).

    Those that it has condemned; once it is done, those that it has deleted: a delete that comes late would hit what was put back.
    """
    for attempt in range(_TRIES):
        found = await list_collections(destination)
        try:
            if found.open:
                return found.newest, (await read_condemned(keyring, destination, found.newest)).packs
            return found.newest, await _deleted(keyring, destination, found)
        except ObjectNotFound:
            # A newer one has come and tidied up since it was listed; unless what is listed is not there at all.
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


async def _deleted(keyring: _core.Keyring, destination: Destination, found: Collections) -> frozenset[bytes]:
    """What the newest collection, which is done, has deleted. It only guards against deletes that come very late: a torn list guards nothing."""
    if not found.newest:
        return frozenset()
    try:
        return await read_delete(keyring, destination, found.newest)
    except ObjectDamaged:
        return frozenset()


async def being_deleted(keyring: _core.Keyring, destination: Destination) -> frozenset[bytes]:
    """The packs that the newest collection has decided to delete, whether or not it has: if they are there, nothing needs them."""
    found = await list_collections(destination)
    try:
        return await read_delete(keyring, destination, found.newest) if names.DELETE in found.parts else frozenset()
    except (ObjectNotFound, ObjectDamaged):
        return frozenset()


async def publish(keyring: _core.Keyring, destination: Destination, condemned: Condemned) -> bool:
    """Opens a collection; False if somebody else has opened that one, or a newer one."""
    key = names.collection(condemned.number, names.CONDEMNED)
    described = objects.CondemnedObject(condemned.number, objects.now(), b"".join(sorted(condemned.packs)), sorted(condemned.ended))
    data = keyring.seal("condemned", key, objects.encode(described))
    if not await destination.create(key, data) and await _present(destination, key) != data:
        return False
    # The number may have been used, and tidied away, since it was found free.
    return (await list_collections(destination)).newest == condemned.number


async def settle(keyring: _core.Keyring, destination: Destination, number: int, packs: frozenset[bytes]) -> frozenset[bytes] | None:
    """Decides what a collection deletes, unless that is decided already; returns what is, or None if the collection is void by now.

    Decided once, by create-if-absent: two who finish one collection may find different packs needed, and whoever is late must not delete
    what somebody built on after the other was done.
    """
    key = names.collection(number, names.DELETE)
    described = objects.DeleteObject(number, objects.now(), b"".join(sorted(packs)))
    await destination.create(key, keyring.seal("delete", key, objects.encode(described)))
    if (await list_collections(destination)).newest != number:
        return None
    return await read_delete(keyring, destination, number)


async def still_open(destination: Destination, number: int) -> bool:
    """Whether that collection is the newest and not done: to be asked before each batch of deletes."""
    found = await list_collections(destination)
    return found.newest == number and found.open


async def conclude(keyring: _core.Keyring, destination: Destination, number: int) -> None:
    """Says that a collection has deleted what it decided to. Two who conclude one collection say the same."""
    key = names.collection(number, names.DONE)
    await destination.create(key, keyring.seal("done", key, objects.encode(objects.DoneObject(number, objects.now()))))


async def _present(destination: Destination, key: str) -> bytes | None:
    try:
        return await destination.read(key, objects.CONDEMNED_LIMIT)
    except (ObjectNotFound, ObjectDamaged):
        return None


def _packs(ids: bytes, fits: bool, key: str, destination: Destination) -> frozenset[bytes]:
    if not fits or len(ids) % 32:
        raise ObjectDamaged(f"{key}: it makes no sense", destination.name)
    return frozenset(ids[at : at + 32] for at in range(0, len(ids), 32))
