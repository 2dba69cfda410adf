"""The facade that programs call: a repository on one or more destinations, and what can be done with it."""

from __future__ import annotations

from snapferry.engine.creating import connect, create_repository
from snapferry.engine.destinations import Added, Destinations, DestinationState, Removed
from snapferry.engine.facade import Repository, open_repository
from snapferry.engine.keys import Keys
from snapferry.engine.secret import check_passphrase_file, public_key
from snapferry.engine.values import BulkResult, ExportJob, JobOutcome, ReplicaDetails, SnapshotDetails
from snapferry.pipeline.reader import SnapshotReader

__all__ = [
    "Added",
    "BulkResult",
    "DestinationState",
    "Destinations",
    "ExportJob",
    "JobOutcome",
    "Keys",
    "Removed",
    "ReplicaDetails",
    "Repository",
    "SnapshotDetails",
    "SnapshotReader",
    "check_passphrase_file",
    "connect",
    "create_repository",
    "open_repository",
    "public_key",
]
