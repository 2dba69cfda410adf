"""What commands did, and what they found broken. ``exit_code`` is that of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from snapferry.types.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Damage:
    """Something found missing or broken: which object, where, and how. ``extents`` are bytes of ``snapshot``'s volume.

    ``whole_at`` names destinations that list the same object and are not known to have it broken, where that was looked for.
    """

    destination: str
    object: str
    reason: str
    snapshot: str | None = None
    extents: tuple[tuple[int, int], ...] = ()
    whole_at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MapUse:
    """What became of a map of changes: ``used``, or not, for that ``reason``; ``audited`` blocks were read to check it."""

    used: bool
    audited: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did; the fields are those of the contract's ``snapshot`` line.

    With a ``map`` of changes that was used, ``blocks_zero`` counts only blocks that were read or that it names.
    ``failures`` maps the destinations in ``behind`` to the error that left them behind. ``cost_gb``: what 10⁹ bytes are likely to cost where it
    lies, if that decided where (placement ``cheapest``).
    ``exit_code`` is 0, or 3 where copies are missing or extents were unreadable.
    """

    snapshot: Snapshot
    bytes_read: int
    bytes_new: int
    bytes_sent: dict[str, int]
    blocks_total: int
    blocks_new: int
    blocks_zero: int
    acknowledged: tuple[str, ...]
    behind: tuple[str, ...]
    failures: dict[str, BaseException]
    seconds: float
    dry_run: bool = False
    map: MapUse | None = None
    cost_gb: float | None = None

    @property
    def id(self) -> str:
        """The snapshot's id."""
        return self.snapshot.id

    @property
    def exit_code(self) -> int:
        """0, or 3 where copies are missing or extents were unreadable."""
        return 3 if self.behind or self.snapshot.unreadable else 0


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did. ``lost`` (best effort) and ``unreadable`` hold (offset, length) pairs in bytes.

    ``hedged`` reads, ``hedged_bytes`` together, were asked of another replica too because they were late. ``failovers`` counts those that
    were asked of another because one failed, lied or hung.
    """

    snapshot: str
    size: int
    bytes_written: int
    bytes_fetched: dict[str, int]
    hedged: int
    failovers: int
    seconds: float
    damage: tuple[Damage, ...] = ()
    lost: tuple[tuple[int, int], ...] = ()
    unreadable: tuple[tuple[int, int], ...] = ()
    hedged_bytes: int = 0

    @property
    def exit_code(self) -> int:
        """0; 4 where blocks were lost (best effort); 3 where the snapshot itself has unreadable extents."""
        return 4 if self.lost else 3 if self.unreadable else 0


@dataclass(frozen=True, slots=True)
class Shortage:
    """Data packs of a snapshot in parts that too few of its ``destinations`` have: ``copies`` are asked for, and the worst of them has ``least``.

    A ``least`` of 0 is no damage yet: somebody who may have it could not be asked.
    """

    snapshot: str
    destinations: tuple[str, ...]
    packs: int
    copies: int
    least: int


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What a verification looked at and what it found.

    ``unverified`` maps destinations that could not be looked at, or not to the end, to the reason: no damage is known there.
    ``short``: snapshots in parts that can be restored, and have fewer copies than asked for.
    """

    snapshots: int
    packs: int
    bytes_read: int
    damage: tuple[Damage, ...]
    seconds: float
    unverified: dict[str, str] = field(default_factory=dict)
    short: tuple[Shortage, ...] = ()

    @property
    def exit_code(self) -> int:
        """4 where damage was found, healable or not; 3 where something could not be looked at, or has too few copies; else 0."""
        return 4 if self.damage else 3 if self.unverified or self.short else 0


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What a repair found and what became of it.

    Attributes:
        healed: what was damaged and is whole again (in a dry run: what could be healed). left: what is not, and why.
        unverified: destinations that could not be looked at, or not to the end, and why.
        bytes_copied: of packs and segments that were put back.
    """

    healed: tuple[Damage, ...]
    left: tuple[Damage, ...]
    unverified: dict[str, str]
    bytes_copied: int
    seconds: float
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        """4 where something is left, 3 where something could not be looked at, else 0."""
        return 4 if self.left else 3 if self.unverified else 0


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync brought to one destination, or would bring.

    Attributes:
        snapshots: ids of the snapshots that it holds now and did not before, oldest first.
        packs: how many packs were put back that snapshots needed which it held already.
        bytes_copied: of all objects; in a dry run, of the packs that are missing there.
        failures: by snapshot id why it could not be brought; by a pack's key why it could not be put back.
        price_once, price_month: of a dry run, what copying and what keeping that costs by the configured prices; 0 where none are set.
    """

    destination: str
    snapshots: tuple[str, ...]
    packs: int
    bytes_copied: int
    failures: dict[str, BaseException] = field(default_factory=dict)
    price_once: float = 0.0
    price_month: float = 0.0


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a sync did; ``failures`` maps destinations that could not be written to, or not asked, to the reason."""

    destinations: tuple[Synced, ...]
    failures: dict[str, BaseException]
    seconds: float
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 3 where something could not be brought."""
        return 3 if self.failures or any(item.failures for item in self.destinations) else 0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did, or would do, at one destination; sizes in bytes of objects.

    Attributes:
        packs_deleted, bytes_freed: packs that nobody needs, and what their going gives back; copies made of their live parts are taken off.
        packs_repacked, bytes_repacked: of the packs deleted, those whose live parts were copied into new packs; and how much that was.
        bytes_kept: of the packs that stay, copies included. bytes_unused: of these, what nobody needs.
    """

    destination: str
    packs_deleted: int
    bytes_freed: int
    packs_repacked: int
    bytes_repacked: int
    bytes_kept: int
    bytes_unused: int


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What a prune did; ``failures`` maps the destinations where it could not be done to the reason."""

    destinations: tuple[Pruned, ...]
    failures: dict[str, BaseException]
    seconds: float
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 3 where a destination failed."""
        return 3 if self.failures else 0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One snapshot that was, or would be, let go: where, and where it could not be.

    Of one whose commit is in good order nowhere nothing is known but its id: ``volume`` is empty and ``created`` None.
    """

    id: str
    volume: str
    created: datetime | None
    destinations: tuple[str, ...]
    failures: dict[str, BaseException] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForgetResult:
    """What a forget did.

    Attributes:
        kept: snapshot id to the reasons why it stays, by destination.
        failures: destinations that could not be looked at or written to.
        bytes_freed: what a prune would give back then, by destination; told for a dry run only.
    """

    forgotten: tuple[Forgotten, ...]
    kept: dict[str, dict[str, tuple[str, ...]]]
    failures: dict[str, BaseException]
    bytes_freed: dict[str, int] = field(default_factory=dict)
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        """0, or 3 where it could not be done everywhere."""
        return 3 if self.failures or any(item.failures for item in self.forgotten) else 0
