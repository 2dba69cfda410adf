"""Deletes all of a repository at one place: first what makes it a repository, so that nobody writes there any more, and its own id last."""

from __future__ import annotations

from snapferry.destination import Destination, list_keys
from snapferry.repository import names
from snapferry.repository.gathering import together

_AT_ONCE = 64


async def dismantle(destination: Destination) -> int:
    """Returns how many objects were deleted. Interrupted, it can be run again: until the end the place's id tells whose it is.

    Only names of a repository are deleted; whatever else lies there stays.
    """
    await destination.delete(names.CONFIG)
    count = 1
    for prefix in (names.SNAPSHOTS, names.SESSIONS, names.INDEX, names.PACKS, names.FORGOTTEN, names.DAMAGED, names.COLLECT, names.KEYS):
        keys = await list_keys(destination, prefix)
        for start in range(0, len(keys), _AT_ONCE):
            await together(destination.delete(key) for key in keys[start : start + _AT_ONCE])
        count += len(keys)
    await destination.delete(names.DESTINATION)
    return count + 1
