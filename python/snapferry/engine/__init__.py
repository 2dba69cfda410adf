"""The facade that programs call: a repository on one or more destinations, and what can be done with it."""

from __future__ import annotations

from snapferry.engine.creating import connect, create_repository
from snapferry.engine.facade import Repository, open_repository
from snapferry.engine.values import BulkResult, ExportJob, JobOutcome, ReplicaDetails, SnapshotDetails
from snapferry.pipeline.reader import SnapshotReader

__all__ = [
    "BulkResult",
    "ExportJob",
    "JobOutcome",
    "ReplicaDetails",
    "Repository",
    "SnapshotDetails",
    "SnapshotReader",
    "connect",
    "create_repository",
    "open_repository",
]
