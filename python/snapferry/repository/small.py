"""Reading the small objects: whole, bounded, and opened with the repository's key before anything is believed."""

from __future__ import annotations

from collections.abc import Mapping

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.repository import objects


def open_object(keyring: _core.Keyring, kind: str, key: str, data: bytes, where: str) -> bytes:
    """The payload of an object; ``ObjectDamaged`` naming it and ``where`` it was read if it is not what its name says."""
    try:
        return keyring.open(kind, key, data)
    except _core.CoreError as error:
        raise ObjectDamaged(f"{key}: {error}", where) from error


async def read_object(
    keyring: _core.Keyring, destination: Destination, kind: str, key: str, limit: int = objects.SMALL_OBJECT_LIMIT
) -> bytes:
    """The payload of an object at one destination.

    Raises:
        ObjectNotFound: it is not there. ObjectDamaged: it is too large, torn or altered. Other ``DestinationError``: it cannot be read.
    """
    return open_object(keyring, kind, key, await destination.read(key, limit), destination.name)


async def read_from_any(
    keyring: _core.Keyring, destinations: Mapping[str, Destination], kind: str, key: str, limit: int = objects.SMALL_OBJECT_LIMIT
) -> tuple[bytes, dict[str, DestinationError]]:
    """The payload of an object from the first destination that has it in good order, and what went wrong at those before it.

    Raises:
        ObjectDamaged: some destination has it and none in good order. DestinationError: none could be asked.
        ObjectNotFound: all answered, and none has it.
    """
    failures: dict[str, DestinationError] = {}
    for name, destination in destinations.items():
        try:
            return await read_object(keyring, destination, kind, key, limit), failures
        except DestinationError as error:
            failures[name] = error
    if not failures:
        raise ObjectNotFound(f"{key}: there is no destination to read it from")
    raise min(failures.values(), key=_rank)


def _rank(error: DestinationError) -> int:
    return 0 if isinstance(error, ObjectDamaged) else 2 if isinstance(error, ObjectNotFound) else 1
