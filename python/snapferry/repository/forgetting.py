"""Letting a snapshot go at one destination: a signed note first, then its commit. The note wins over whatever copy is left or comes back."""

from __future__ import annotations

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.repository import names, objects
from snapferry.repository.small import read_object


async def forget_at(keyring: _core.Keyring, destination: Destination, snapshot_id: str) -> None:
    """Notes that a snapshot was let go, and removes its commit. A note of ours that is there stays; a broken one is made anew."""
    key = names.forgotten(snapshot_id)
    note = keyring.seal("forgotten", key, objects.encode(objects.ForgottenObject(snapshot_id, objects.now())))
    if not await destination.create(key, note) and not await _is_ours(keyring, destination, key):
        await destination.delete(key)
        if not await destination.create(key, note) and not await _is_ours(keyring, destination, key):
            raise ObjectDamaged(f"{key} is damaged there and cannot be replaced", destination.name)
    await destination.delete(names.snapshot(snapshot_id))


async def _is_ours(keyring: _core.Keyring, destination: Destination, key: str) -> bool:
    try:
        await read_object(keyring, destination, "forgotten", key)
    except (ObjectDamaged, ObjectNotFound):
        return False
    return True
