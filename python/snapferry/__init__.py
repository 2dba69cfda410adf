"""snapferry: block volumes backed up to several stores in one pass, and restored from whichever answers best.

    async with snapferry.open_repository("snapferry.toml") as repository:
        snapshot = await repository.export("/srv/images/vm-42.img", volume="vm-42/root")
        await repository.restore(snapshot.id, "/srv/images/recovered.img")

Importing it does no work: what is named here is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snapferry.config import Config, load_config, new_config
    from snapferry.engine import (
        Added,
        BulkResult,
        Destinations,
        DestinationState,
        ExportJob,
        JobOutcome,
        Keys,
        Removed,
        ReplicaDetails,
        Repository,
        SnapshotDetails,
        SnapshotReader,
        connect,
        create_repository,
        open_repository,
    )
    from snapferry.errors import (
        AccessDenied,
        CatalogError,
        ConfigurationError,
        DamageError,
        DestinationDenied,
        DestinationDetached,
        DestinationError,
        DestinationFull,
        DestinationNotARepository,
        DestinationUnreachable,
        Fenced,
        NotARepository,
        ObjectDamaged,
        ObjectNotFound,
        SnapferryError,
        SnapshotNotFound,
        SourceChanged,
        SourceError,
        SourceReadError,
        TargetError,
        TargetFull,
    )
    from snapferry.lifecycle.retention import RetentionPolicy
    from snapferry.source import ChangeMap, DeviceSource, FileSource, SequentialSource, Source, StreamSource, read_change_map
    from snapferry.types import (
        ChannelProgress,
        Damage,
        ExportResult,
        ForgetResult,
        Forgotten,
        KeyChange,
        KeySlot,
        ListedSummary,
        MapUse,
        Progress,
        Pruned,
        PruneResult,
        RepairResult,
        RestoreResult,
        Shortage,
        Snapshot,
        SnapshotSummary,
        Synced,
        SyncResult,
        VerifyResult,
    )

_HOMES = {
    "snapferry.config": ("Config", "load_config", "new_config"),
    "snapferry.engine": (
        "Added", "BulkResult", "DestinationState", "Destinations", "ExportJob", "JobOutcome", "Keys", "Removed", "ReplicaDetails",
        "Repository", "SnapshotDetails", "SnapshotReader", "connect", "create_repository", "open_repository",
    ),
    "snapferry.errors": (
        "AccessDenied", "CatalogError", "ConfigurationError", "DamageError", "DestinationDenied", "DestinationDetached", "DestinationError", "DestinationFull",
        "DestinationNotARepository", "DestinationUnreachable", "Fenced", "NotARepository", "ObjectDamaged", "ObjectNotFound",
        "SnapferryError", "SnapshotNotFound", "SourceChanged", "SourceError", "SourceReadError", "TargetError", "TargetFull",
    ),
    "snapferry.lifecycle.retention": ("RetentionPolicy",),
    "snapferry.source": (
        "ChangeMap", "DeviceSource", "FileSource", "SequentialSource", "Source", "StreamSource", "read_change_map",
    ),
    "snapferry.types": (
        "ChannelProgress", "Damage", "ExportResult", "ForgetResult", "Forgotten", "KeyChange", "KeySlot", "ListedSummary", "MapUse",
        "Progress", "PruneResult", "Pruned", "RepairResult", "RestoreResult", "Shortage", "Snapshot", "SnapshotSummary", "SyncResult", "Synced",
        "VerifyResult",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "Added",
    "BulkResult",
    "CatalogError",
    "ChangeMap",
    "ChannelProgress",
    "Config",
    "ConfigurationError",
    "Damage",
    "DamageError",
    "DestinationDenied",
    "DestinationDetached",
    "DestinationError",
    "DestinationFull",
    "DestinationNotARepository",
    "DestinationState",
    "DestinationUnreachable",
    "Destinations",
    "DeviceSource",
    "ExportJob",
    "ExportResult",
    "Fenced",
    "FileSource",
    "ForgetResult",
    "Forgotten",
    "JobOutcome",
    "KeyChange",
    "KeySlot",
    "Keys",
    "ListedSummary",
    "MapUse",
    "NotARepository",
    "ObjectDamaged",
    "ObjectNotFound",
    "Progress",
    "PruneResult",
    "Pruned",
    "Removed",
    "RepairResult",
    "ReplicaDetails",
    "Repository",
    "RestoreResult",
    "RetentionPolicy",
    "SequentialSource",
    "Shortage",
    "SnapferryError",
    "Snapshot",
    "SnapshotDetails",
    "SnapshotNotFound",
    "SnapshotReader",
    "SnapshotSummary",
    "Source",
    "SourceChanged",
    "SourceError",
    "SourceReadError",
    "StreamSource",
    "SyncResult",
    "Synced",
    "TargetError",
    "TargetFull",
    "VerifyResult",
    "connect",
    "create_repository",
    "load_config",
    "new_config",
    "open_repository",
    "read_change_map",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
