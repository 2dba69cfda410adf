"""Which destinations are meant to hold a snapshot: what a sync brings, and what counts as missing in a listing. Pure."""

from __future__ import annotations

from snapferry.placement import meant_for
from snapferry.types import SnapshotSummary


def wanted(snapshot: SnapshotSummary, destination: str) -> bool:
    """Whether the placement that ``snapshot`` was made under gives it, whole or in part, to the destination of that name."""
    return meant_for(snapshot.placement, destination)
