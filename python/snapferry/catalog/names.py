"""Names for completion: read quickly, without making, changing or waiting for anything."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

_BUSY_SECONDS = 0.2


def volumes(url: str, repository: str) -> list[str]:
    """Names of the volumes in the catalog at ``url``; none where there is no catalog, or none that can be read at once."""
    return _column(url, "SELECT volume FROM generations WHERE repository = ? ORDER BY volume", repository)


def snapshots(url: str, repository: str, prefix: str, most: int) -> list[str]:
    """Up to ``most`` ids of snapshots that begin with ``prefix``; as ``volumes``."""
    query = "SELECT DISTINCT snapshot FROM replicas WHERE repository = ? AND snapshot >= ? AND snapshot < ? ORDER BY snapshot LIMIT ?"
    return _column(url, query, repository, prefix, prefix + "g", most)


def _column(url: str, query: str, *values: str | int) -> list[str]:
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        return []
    try:
        with contextlib.closing(
            sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", timeout=_BUSY_SECONDS, uri=True)
        ) as connection:
            return [str(value) for (value,) in connection.execute(query, values)]
    except sqlite3.Error:
        return []
