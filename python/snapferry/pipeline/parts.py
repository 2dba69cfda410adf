"""Snapshots that lie in parts: what all destinations of one together hold of it, and how many copies there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from snapferry.placement import described
from snapferry.repository.presence import Presence
from snapferry.types import ListedSnapshot, Shortage


@dataclass(slots=True)
class PartSet:
    """The destinations of one snapshot that lies in parts.

    Attributes:
        copies: of each data pack that there are to be.
        holders: the destinations that list its commit, in order. counts: by pack, how many of them list it whole.
        speaker: the one of them at which something counts as missing that none has.
        partial: some destination could not be asked, so that what is missing may be there.
        found: by data pack that the snapshot needs, how many list it, where these are fewer than ``copies``; filled as it is looked at.
    """

    copies: int
    holders: tuple[str, ...]
    counts: dict[bytes, int]
    speaker: str | None = None
    partial: bool = False
    found: dict[bytes, int] = field(default_factory=dict)

    def due_at(self, name: str, needed: AbstractSet[bytes], pages: AbstractSet[bytes], listed: Mapping[bytes, int]) -> set[bytes]:
        """Of the packs that the snapshot needs those that are to be at one destination: all with pages, and of the others what it has.

        One that none has counts as missing at one of them, unless somebody could not be asked.
        """
        due = {pack for pack in needed if pack in pages or pack in listed}
        for pack in needed - pages:
            count = self.counts.get(pack, 0)
            if count < self.copies:
                self.found[pack] = count
            if not count and not self.partial and name == self.speaker:
                due.add(pack)
        return due

    def shortage(self, snapshot: str) -> Shortage | None:
        """What there are too few copies of; None where there are enough."""
        found = {pack: count for pack, count in self.found.items() if count or self.partial}
        return Shortage(snapshot, self.holders, len(found), self.copies, min(found.values())) if found else None


def part_sets(
    snapshots: Iterable[ListedSnapshot], presence: Presence, sizes: Mapping[bytes, int], looked_at: Iterable[str], silent: Iterable[str]
) -> dict[str, PartSet]:
    """By id, those of the snapshots that lie in parts.

    Arguments:
        presence: what all destinations that can be asked list. sizes: of packs that the index knows with another size than some list.
        looked_at: destinations that are verified now. silent: those that cannot be asked.
    """
    looked_at, partial = list(looked_at), bool(list(silent) or presence.failures)
    found: dict[str, PartSet] = {}
    counted: dict[tuple[str, ...], dict[bytes, int]] = {}
    for item in snapshots:
        copies = described(item.snapshot.placement).copies
        if copies is None:
            continue
        if item.destinations not in counted:
            counted[item.destinations] = _counts(item.destinations, presence, sizes)
        speaker = next((name for name in item.destinations if name in looked_at), None)
        found[item.snapshot.id] = PartSet(copies, item.destinations, counted[item.destinations], speaker, partial)
    return found


def _counts(names: Iterable[str], presence: Presence, sizes: Mapping[bytes, int]) -> dict[bytes, int]:
    """Shared by all snapshots of the same destinations: there may be many, and of packs too."""
    counts: dict[bytes, int] = {}
    for name in names:
        for pack, size in presence.packs.get(name, {}).items():
            if sizes.get(pack, size) == size:
                counts[pack] = counts.get(pack, 0) + 1
    return counts
