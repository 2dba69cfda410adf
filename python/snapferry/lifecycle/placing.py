"""Which destinations are meant to hold a snapshot: what a sync brings, and what counts as missing in a listing. Pure."""

from __future__ import annotations

from snapferry.types import SnapshotSummary


def wanted(snapshot: SnapshotSummary, destination: str) -> bool:
    """Whether the placement gives ``snapshot`` to the destination of that name. Under ``mirror``, the one policy so far, all hold all."""
    del snapshot, destination
    return True
