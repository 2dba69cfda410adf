"""What the facade returns beyond ``snapferry.types``. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from snapferry.types import Damage, Snapshot


@dataclass(frozen=True, slots=True)
class ReplicaDetails:
    """One destination's share in a snapshot.

    Attributes:
        committed: it holds the snapshot's commit.
        packs_present, packs_missing: of those that the snapshot needs, by its own listing.
        damage: known from earlier verifications and restores, or found now.
    """

    destination: str
    committed: bool
    packs_present: int
    packs_missing: int
    damage: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotDetails:
    """A snapshot, and how each reachable destination stands to it."""

    snapshot: Snapshot
    replicas: tuple[ReplicaDetails, ...]
