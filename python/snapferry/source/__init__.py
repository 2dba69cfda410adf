"""Where a volume's bytes are read. Knows sizes, holes and bytes; nothing of blocks, packs or destinations."""

from __future__ import annotations

from snapferry.source.contract import Source
from snapferry.source.file import FileSource
from snapferry.source.opening import open_source

__all__ = ["FileSource", "Source", "open_source"]
