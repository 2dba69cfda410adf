"""Which destination holds which pack, by their own listings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from snapferry.destination import Destination
from snapferry.errors import DestinationError
from snapferry.repository import names
from snapferry.repository.gathering import together


@dataclass(slots=True)
class Presence:
    """The packs that each destination lists, but for those that a note there says are bad.

    Attributes:
        packs: by destination, pack id (32 bytes) to the size in bytes that it lists.
        failures: destinations that could not be listed.
    """

    packs: dict[str, dict[bytes, int]] = field(default_factory=dict)
    failures: dict[str, DestinationError] = field(default_factory=dict)

    def copy(self) -> Presence:
        """One to be changed by itself."""
        return Presence({name: dict(packs) for name, packs in self.packs.items()}, dict(self.failures))

    def holders(self, pack: bytes) -> list[str]:
        """The destinations that list it."""
        return [name for name, packs in self.packs.items() if pack in packs]

    def everywhere(self, among: Iterable[str]) -> set[bytes]:
        """The packs that all of these destinations list; none if there is no destination."""
        sets = [self.packs.get(name, {}).keys() for name in among]
        common = set(sets[0]) if sets else set()
        for other in sets[1:]:
            common &= other
        return common

    def drop(self, unusable: Mapping[str, AbstractSet[bytes]]) -> None:
        """Forgets packs that are known to be bad, or about to be deleted, by destination."""
        for name, packs in unusable.items():
            for pack in packs:
                self.packs.get(name, {}).pop(pack, None)

    def drop_misfits(self, sizes: Mapping[bytes, int]) -> list[tuple[str, bytes, int]]:
        """Forgets packs listed with another size than the index knows: torn copies. Returns (destination, pack, size listed) of each."""
        misfits = [
            (name, pack, size) for name, packs in self.packs.items() for pack, size in packs.items() if sizes.get(pack, size) != size
        ]
        for name, pack, _ in misfits:
            del self.packs[name][pack]
        return misfits


async def list_presence(destinations: Mapping[str, Destination]) -> Presence:
    """Lists the packs of all ``destinations`` side by side."""
    presence = Presence()
    found = await together(_packs(destination) for destination in destinations.values())
    for name, result in zip(destinations, found, strict=True):
        if isinstance(result, DestinationError):
            presence.failures[name] = result
        else:
            presence.packs[name] = result
    return presence


async def _packs(destination: Destination) -> dict[bytes, int] | DestinationError:
    packs: dict[bytes, int] = {}
    try:
        async for info in destination.list(names.PACKS):
            pack = names.parse_pack(info.key)
            if pack is not None:
                packs[pack] = info.size
        async for info in destination.list(names.DAMAGED):
            packs.pop(names.parse_damaged(info.key) or b"", None)
    except DestinationError as error:
        return error
    return packs
