"""From what a user calls a source to an open one."""

from __future__ import annotations

import os

from snapferry.source.contract import Source
from snapferry.source.file import FileSource


def open_source(source: str | os.PathLike[str] | Source) -> Source:
    """Opens a source by its path, or hands an open one through.

    Raises:
        SourceError: it is missing, unreadable, or of a kind that this version does not read.
    """
    if isinstance(source, (str, os.PathLike)):
        return FileSource(source)
    return source
