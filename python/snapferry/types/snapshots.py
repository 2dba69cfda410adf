"""Snapshots, as their commit objects and as listings have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import msgspec


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sealed record lies: ``length`` bytes from ``offset`` of the pack whose id is ``pack`` (32 bytes)."""

    pack: bytes
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Root:
    """One tree's root page: its keyed id (32 bytes) and where it lies."""

    page: bytes
    place: Place


@dataclass(frozen=True, slots=True)
class Roots:
    """Both trees of a snapshot. ``ids`` is None for a volume of zeros only (or of size 0); ``places`` then too."""

    height: int
    ids: Root | None
    places: Root | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A committed snapshot, as its commit object says.

    Attributes:
        id: 32 hex digits.
        generation: per volume, one above the greatest seen when it was made; ties are ordered by id.
        size: of the volume, in bytes.
        block_size: in bytes.
        parent: id of the snapshot it was compared with; information only.
        unreadable: (offset, length) pairs in bytes that the source could not supply.
        bytes_new: plaintext bytes of the blocks that were stored for it.
    """

    id: str
    volume: str
    generation: int
    created: datetime
    size: int
    block_size: int
    roots: Roots
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    unreadable: tuple[tuple[int, int], ...] = ()
    bytes_new: int = 0
    placement: str = "mirror"


class SnapshotSummary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a listing shows of a snapshot: ``Snapshot`` without what only its commit may tell, because reading it rests on that."""

    id: str
    volume: str
    generation: int
    created: datetime
    size: int
    block_size: int
    bytes_new: int
    parent: str | None
    tags: dict[str, str]
    placement: str = "mirror"


class ListedSummary(msgspec.Struct, frozen=True, gc=False):
    """A snapshot as a listing shows it, and the names of the destinations that list its commit."""

    snapshot: SnapshotSummary
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListedSnapshot:
    """A snapshot and the names of the destinations that hold its commit."""

    snapshot: Snapshot
    destinations: tuple[str, ...]
