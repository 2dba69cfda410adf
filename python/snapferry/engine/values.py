"""What the facade returns beyond ``snapferry.types``. Data only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snapferry.source import AnySource, ChangeMap
from snapferry.types import Damage, ExportResult, Snapshot


@dataclass(frozen=True, slots=True)
class ReplicaDetails:
    """One destination's share in a snapshot.

    Attributes:
        committed: it holds the snapshot's commit.
        packs_present: of those that the snapshot needs, by its own listing. packs_missing: of those that are to be there; of a snapshot in
            parts only the manifest packs are.
        manifest_packs, data_packs, bytes: of those present. What other snapshots need too is counted whole.
        damage: known from earlier verifications and restores, or found now.
    """

    destination: str
    committed: bool
    packs_present: int
    packs_missing: int
    damage: tuple[Damage, ...] = ()
    manifest_packs: int = 0
    data_packs: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotDetails:
    """A snapshot, and how each reachable destination stands to it.

    Attributes:
        packs_short: data packs of a snapshot in parts that have fewer ``copies`` than asked for. packs_lost: those that nobody has who could be asked.
        monthly_costs: by destination that holds it, what it costs there to keep for a month; empty where no price is known.
        restore_cost: what it costs to read all of it once, each pack where that is cheapest; None where no price is known.
    """

    snapshot: Snapshot
    replicas: tuple[ReplicaDetails, ...]
    packs_short: int = 0
    packs_lost: int = 0
    copies: int = 1
    monthly_costs: Mapping[str, float] = field(default_factory=dict)
    restore_cost: float | None = None


@dataclass(frozen=True, slots=True)
class ExportJob:
    """One of several exports; the fields mean what the arguments of ``Repository.export`` do.

    Attributes:
        limit_rate: bytes a second that this job may send; beside what all together may.
    """

    source: str | os.PathLike[str] | AnySource
    volume: str | None = None
    to: Sequence[str] | None = None
    min_copies: int | None = None
    block_size: int | None = None
    parent: str = "auto"
    tags: Mapping[str, str] = field(default_factory=dict)
    skip_unreadable: bool = False
    limit_rate: float | None = None
    changed: str | os.PathLike[str] | ChangeMap | None = None
    placement: str | None = None

    @property
    def source_name(self) -> str:
        """The source as messages call it."""
        return os.fspath(self.source) if isinstance(self.source, (str, os.PathLike)) else self.source.name

    @property
    def volume_name(self) -> str:
        """The volume's name: as given, else the source's file name. Empty where there is none, as for standard input."""
        name = Path(self.source_name).name if self.volume is None else self.volume
        return "" if self.volume is None and name == "-" else name


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of one job: ``result``, or the ``error`` that ended it."""

    job: ExportJob
    result: ExportResult | None = None
    error: Exception | None = None

    @property
    def exit_code(self) -> int:
        """As if it had been exported alone."""
        return self.result.exit_code if self.result is not None else getattr(self.error, "exit_code", 1)


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of all jobs, in the order they were given."""

    outcomes: tuple[JobOutcome, ...]
    seconds: float

    @property
    def results(self) -> tuple[ExportResult, ...]:
        """Of those that made a snapshot (or would have, in a dry run)."""
        return tuple(outcome.result for outcome in self.outcomes if outcome.result is not None)

    @property
    def partial(self) -> tuple[ExportResult, ...]:
        """Of the results, those with fewer copies than asked for, or with extents that could not be read."""
        return tuple(result for result in self.results if result.exit_code)

    @property
    def failed(self) -> tuple[JobOutcome, ...]:
        """The outcomes without a result."""
        return tuple(outcome for outcome in self.outcomes if outcome.result is None)

    @property
    def exit_code(self) -> int:
        """0 if all are done, else 3 if any snapshot was acknowledged, else 1."""
        if not self.failed and not self.partial:
            return 0
        return 3 if self.results else 1
