"""The lines of ``list --json``: as structs, because there may be a hundred thousand."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from snapferry.types import ListedSummary


class SnapshotLine(msgspec.Struct, gc=False):
    """One snapshot; the fields and their order are those of the contract, and three more."""

    snapshot: str
    volume: str
    created: datetime
    size: int
    bytes_new: int
    destinations: tuple[str, ...]
    parent: str | None
    block_size: int
    generation: int
    tags: dict[str, str]


def snapshot_lines(listed: Iterable[ListedSummary]) -> list[SnapshotLine]:
    """A line for each."""
    return [
        SnapshotLine(
            found.id,
            found.volume,
            found.created,
            found.size,
            found.bytes_new,
            item.destinations,
            found.parent,
            found.block_size,
            found.generation,
            found.tags,
        )
        for item in listed
        for found in (item.snapshot,)
    ]
