"""Notes that a snapshot was let go, read: a name alone is something that anybody could have put there."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.repository import names
from snapferry.repository.gathering import together
from snapferry.repository.small import read_object

_AT_ONCE = 32


async def good_notes(keyring: _core.Keyring, destination: Destination, ids: AbstractSet[str]) -> set[str]:
    """Those of the notes that are this repository's: anybody else's, or a torn one, lets nothing go."""

    async def good(snapshot: str) -> str | None:
        try:
            await read_object(keyring, destination, "forgotten", names.forgotten(snapshot))
        except (ObjectDamaged, ObjectNotFound):
            return None
        return snapshot

    found: set[str] = set()
    ordered = sorted(ids)
    for start in range(0, len(ordered), _AT_ONCE):
        found |= {snapshot for snapshot in await together(map(good, ordered[start : start + _AT_ONCE])) if snapshot is not None}
    return found
