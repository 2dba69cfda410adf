"""Where the parts of one export go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from snapferry.placement.spreading import ranked

Range = tuple[int, int | None]
"""From byte to byte of the volume, the end not included; None: to the volume's end."""


@dataclass(frozen=True, slots=True)
class Share:
    """``copies`` of each data pack, on as many different ones of ``holders``."""

    holders: tuple[str, ...]
    copies: int

    @property
    def mirrored(self) -> bool:
        """Each holder gets everything."""
        return self.copies == len(self.holders)


@dataclass(frozen=True, slots=True)
class Group:
    """The blocks that go to the same places.

    Attributes:
        ranges: where they lie in the volume.
        share: where packs with such blocks go.
        accepted: under which of these a pack that is there already is good enough; ``share`` is the first.
        why: what made it so, as messages call it.
    """

    ranges: tuple[Range, ...]
    share: Share
    accepted: tuple[Share, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one export goes.

    Attributes:
        policy: its name.
        members: the snapshot's destination set: each gets commit, manifest packs, index segments and key slots.
        groups: which of them get which data packs; together they cover the volume.
        weights: of members that are not of weight 1.
        cost: where it was what decided: of 10⁹ bytes, for as long as they are likely to be kept, with what is likely to be read of them.
    """

    policy: str
    members: tuple[str, ...]
    groups: tuple[Group, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    cost: float | None = None

    @property
    def whole(self) -> bool:
        """Every member gets every pack, so that each holds the snapshot by itself."""
        everything = Share(self.members, len(self.members))
        return all(group.accepted == (everything,) for group in self.groups)

    @property
    def shares(self) -> tuple[Share, ...]:
        """Every share that some pack may lie under, once."""
        return tuple(dict.fromkeys(share for group in self.groups for share in group.accepted))

    def number(self, group: Group) -> int:
        """What the core calls it: packs of one number have blocks of one group. 0 is what all members hold, so all of a whole snapshot."""
        return 0 if self.whole else self.groups.index(group) + 1

    def group(self, number: int) -> Group:
        """The group of that number."""
        return self.groups[max(0, number - 1)]

    def areas(self, block_size: int) -> list[tuple[int, int]]:
        """(first block, group number) of each stretch of the volume, in order, from block 0 on. A block belongs where its first byte lies."""
        stretches = sorted((start, end, self.number(group)) for group in self.groups for start, end in group.ranges)
        areas: list[tuple[int, int]] = []
        for start, end, number in stretches:
            first = -(-start // block_size)
            if end is not None and -(-end // block_size) <= first:
                continue  # No block begins in it.
            if not areas or areas[-1][1] != number:
                areas.append((first, number))
        return areas

    def chosen(self, pack: bytes, share: Share, alive: frozenset[str]) -> tuple[str, ...]:
        """The holders that a new pack goes to, of those that are ``alive``."""
        holders = [name for name in share.holders if name in alive]
        return tuple(ranked(pack, holders, self.weights)[: share.copies])
