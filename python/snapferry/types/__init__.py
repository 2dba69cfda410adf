"""The frozen values that cross between rooms. Data only: nothing here reads or writes."""

from __future__ import annotations

from snapferry.types.keys import (
    KeyChange,
    KeySlot,
)
from snapferry.types.progress import (
    ChannelProgress,
    Preference,
    Progress,
    ProgressCallback,
)
from snapferry.types.results import (
    Damage,
    ExportResult,
    ForgetResult,
    Forgotten,
    MapUse,
    Pruned,
    PruneResult,
    RepairResult,
    RestoreResult,
    Shortage,
    Synced,
    SyncResult,
    VerifyResult,
)
from snapferry.types.sizes import (
    DEFAULT_BLOCK_SIZE,
    MAX_BLOCK_SIZE,
    MIN_BLOCK_SIZE,
    GiB,
    KiB,
    MiB,
)
from snapferry.types.snapshots import (
    ListedSnapshot,
    ListedSummary,
    Place,
    Root,
    Roots,
    Snapshot,
    SnapshotSummary,
)

__all__ = [
    "DEFAULT_BLOCK_SIZE",
    "MAX_BLOCK_SIZE",
    "MIN_BLOCK_SIZE",
    "ChannelProgress",
    "Damage",
    "ExportResult",
    "ForgetResult",
    "Forgotten",
    "GiB",
    "KeyChange",
    "KeySlot",
    "KiB",
    "ListedSnapshot",
    "ListedSummary",
    "MapUse",
    "MiB",
    "Place",
    "Preference",
    "Progress",
    "ProgressCallback",
    "PruneResult",
    "Pruned",
    "RepairResult",
    "RestoreResult",
    "Root",
    "Roots",
    "Shortage",
    "Snapshot",
    "SnapshotSummary",
    "SyncResult",
    "Synced",
    "VerifyResult",
]
