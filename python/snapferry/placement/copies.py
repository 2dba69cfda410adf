"""How many copies there are for sure: which packs count as known, who must be sent a copy, and whether a snapshot may be acknowledged.

For each share, ``goal`` copies of every pack are on members that are not absent, once all of them are up to date: new packs go to as many, and a pack that
is there already counts only if it is on so many that copies for those behind make up the rest. Then each member that fails takes away one copy
at most, and what is left can be told without remembering who holds what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from snapferry.placement.layout import Group, Layout, Share

Presence = Mapping[str, Mapping[bytes, object]]
"""By destination, the packs that it lists."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an export's members stood when it began to read.

    Attributes:
        absent: those that did not take part at all. behind: those that lacked the snapshot before this one.
        min_copies: of everything, to acknowledge.
    """

    layout: Layout
    absent: frozenset[str]
    behind: frozenset[str]
    min_copies: int

    def goal(self, share: Share) -> int:
        """Copies of each pack under this share once all who take part are up to date."""
        absent = len(self.absent.intersection(share.holders))
        return min(len(share.holders) - absent, max(self.min_copies, share.copies - absent))

    def least(self, share: Share) -> int:
        """On so many up-to-date holders a pack must be to count as known. 0 or less: one that is behind may be the only one that has it."""
        return self.goal(share) - len(self.behind.intersection(share.holders))

    def left(self, share: Share, lost: AbstractSet[str]) -> int:
        """Copies of each pack that there are for sure without those that were ``lost`` since, or are not up to date yet."""
        return self.goal(share) - len((lost - self.absent) & set(share.holders))

    def known(self, share: Share, presence: Presence) -> set[bytes]:
        """The packs that are there well enough under this share."""
        least = self.least(share)
        names = [name for name in share.holders if name not in self.absent and (least < 1 or name not in self.behind)]
        lists = [presence.get(name, {}).keys() for name in names]
        least = max(1, least)
        if len(lists) < least:
            return set()
        if len(lists) == least:
            lists.sort(key=len)
            common = set(lists[0])
            for packs in lists[1:]:
                common &= packs
            return common
        counts: dict[bytes, int] = {}
        for packs in lists:
            for pack in packs:
                counts[pack] = counts.get(pack, 0) + 1
        return {pack for pack, count in counts.items() if count >= least}

    def known_in(self, group: Group, presence: Presence) -> set[bytes]:
        """The packs whose blocks count as known for a group: under any share that it accepts."""
        return set[bytes]().union(*(self.known(share, presence) for share in group.accepted))

    def everywhere(self, presence: Presence) -> set[bytes]:
        """The packs that every up-to-date member lists: manifest packs must be there."""
        members = self.layout.members
        return self.known(Share(members, len(members)), presence)

    def in_play(self, presence: Presence) -> tuple[Share, ...]:
        """The shares under which something of the snapshot may lie: those that new packs are placed by, and those under which any pack counts as known."""
        placed = dict.fromkeys(group.share for group in self.layout.groups)
        return tuple(share for share in self.layout.shares if share in placed or self.known(share, presence))

    def short(self, lost: AbstractSet[str], in_play: Iterable[Share]) -> list[Share]:
        """The shares of which fewer than ``min_copies`` are left: while there is one, no commit may be begun."""
        return [share for share in in_play if self.left(share, lost) < self.min_copies]

    def wanting(self, pack: bytes, group: Group, good: AbstractSet[str], presence: Presence) -> tuple[str, ...]:
        """Who of those behind must be sent a copy of a pack with blocks of that group: as many as are missing, next in its ranking.

        Arguments:
            good: members that have not failed. presence: what each had.
        """
        lacking: list[tuple[int, Share]] = []
        for share in group.accepted:
            listed = [name for name in share.holders if name not in self.absent and pack in presence.get(name, {})]
            missing = self.goal(share) - sum(name in good for name in listed)
            if missing <= 0:
                return ()
            # Also where all that had it have failed since: then it cannot be copied, and who needs it fails too, instead of doing without.
            if listed:
                lacking.append((missing, share))
        if not lacking:
            return ()
        missing, share = min(lacking, key=lambda item: item[0])
        behind = tuple(name for name in share.holders if name in self.behind and pack not in presence.get(name, {}))
        return self.layout.chosen(pack, Share(behind, missing), frozenset(behind))
