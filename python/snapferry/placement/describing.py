"""How a commit says where its snapshot lies: one text, whose first words are for programs, and the rest for people.

A reader needs none of it to restore: who lists a pack has it. It tells a destination that lacks packs by design from one that lost them. A version that
knows no such text takes the snapshot for one that each destination should hold whole: it restores it, and refuses to prune.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from snapferry.placement.layout import Layout

_LONGEST = 2000
_TEXT = re.compile(r"(?P<policy>[a-z]+)( copies=(?P<copies>[1-9][0-9]{0,3}))?( over (?P<members>[^ ;]+))?(;.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Described:
    """What a commit says.

    Attributes:
        copies: of each data pack, among all destinations of the set; None where each holds all of it.
        members: the set's names, as who wrote it called them; empty where it does not say, as of a mirror: then it is meant for all.
    """

    policy: str
    copies: int | None = None
    members: tuple[str, ...] = ()

    @property
    def in_parts(self) -> bool:
        """A destination of the set may lack packs by design."""
        return self.copies is not None


def describe(layout: Layout) -> str:
    """The text for the commit, with the number of copies where it lies in parts."""
    if layout.policy == "mirror":
        return layout.policy
    copies = "" if layout.whole else f" copies={min(share.copies for share in layout.shares)}"
    text = f"{layout.policy}{copies} over {','.join(layout.members)}"
    if not layout.whole and len(layout.groups) > 1:
        parts = (
            f"{start}-{'' if end is None else end}: {group.share.copies} of {','.join(group.share.holders)}"
            for group in layout.groups
            for start, end in group.ranges
        )
        text = f"{text}; {'; '.join(parts)}"
    return text if len(text) <= _LONGEST else f"{layout.policy}{copies}"


def described(text: str) -> Described:
    """What such a text says; any other is a policy under which each destination holds everything."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return Described(text)
    members = tuple(found["members"].split(",")) if found["members"] else ()
    return Described(found["policy"], int(found["copies"]) if found["copies"] else None, members)


def meant_for(text: str, name: str) -> bool:
    """Whether a snapshot whose commit says this is to lie, whole or in part, at the destination of that name."""
    members = described(text).members
    return not members or name in members


def placed_alike(text: str, layout: Layout) -> bool:
    """Whether a snapshot whose commit says this lies as the layout would place it: whole on each member, or in just such parts."""
    return not described(text).in_parts if layout.whole else text == describe(layout)
