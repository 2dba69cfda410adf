"""Reading the small objects: whole, bounded, and opened with the repository's key before anything is believed."""

from __future__ import annotations

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged
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
