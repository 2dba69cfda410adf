"""Where a volume's bytes are read. Knows sizes, holes and bytes; nothing of blocks, packs or destinations."""

from __future__ import annotations

from snapferry.source.changed import ChangeMap, parse_change_map, read_change_map
from snapferry.source.contract import AnySource, SequentialSource, Source
from snapferry.source.device import DeviceSource
from snapferry.source.file import FileSource
from snapferry.source.opening import open_source
from snapferry.source.stream import StreamSource

__all__ = [
    "AnySource",
    "ChangeMap",
    "DeviceSource",
    "FileSource",
    "SequentialSource",
    "Source",
    "StreamSource",
    "open_source",
    "parse_change_map",
    "read_change_map",
]
