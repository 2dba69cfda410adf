"""What a collection condemns and what it copies first: a pure decision over what each pack is still needed for."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackUse:
    """What one pack at one destination is needed for, in bytes.

    Attributes:
        size: of the whole object.
        live: of its records of blocks that somebody needs and that are to be kept there. total: of all its records of blocks.
        pages: it holds manifest pages that are reached.
    """

    pack: bytes
    size: int
    live: int
    total: int
    pages: bool

    @property
    def dead(self) -> bool:
        """Nobody needs anything in it."""
        return not self.live and not self.pages

    @property
    def unused(self) -> int:
        """Bytes in it that nobody needs; pages are taken whole."""
        return self.size if self.dead else self.total - self.live


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done at one destination.

    Attributes:
        dead: packs that nobody needs.
        repack: packs whose live records are to be copied into new ones, and which are then dead too.
        copied: bytes of those records.
        freed: bytes that go in the end, copies taken off; ``unused``: bytes that stay though nobody needs them.
        kept: bytes of all packs that stay, copies included.
    """

    dead: frozenset[bytes]
    repack: frozenset[bytes]
    copied: int
    freed: int
    unused: int
    kept: int


def decide(uses: Mapping[bytes, PackUse], max_unused: float, repackable: AbstractSet[bytes]) -> Decision:
    """Which packs go, and which are copied first so that at most ``max_unused`` (a share, 0 to 1) of what stays is needed by nobody.

    Those with the least live share are copied first, since they give the most for a byte copied; ties by id, so that everybody decides
    the same.

    Arguments:
        repackable: the packs that may be copied; others stay as long as anybody needs anything in them.
    """
    dead = frozenset(pack for pack, use in uses.items() if use.dead)
    staying = [use for pack, use in uses.items() if pack not in dead]
    kept, unused = sum(use.size for use in staying), sum(use.unused for use in staying)
    partly = [use for use in staying if use.pack in repackable and use.unused and not use.pages]
    repack: list[PackUse] = []
    for use in sorted(partly, key=lambda use: (use.live / use.total, use.pack)):
        if unused <= max_unused * kept:
            break
        repack.append(use)
        kept -= use.size - use.live
        unused -= use.unused
    copied = sum(use.live for use in repack)
    freed = sum(uses[pack].size for pack in dead) + sum(use.size for use in repack) - copied
    return Decision(dead, frozenset(use.pack for use in repack), copied, freed, unused, kept)
