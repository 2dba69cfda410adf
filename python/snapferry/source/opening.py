"""From what a user calls a source to an open one."""

from __future__ import annotations

import os
import stat

from snapferry.errors import SourceError
from snapferry.source.contract import AnySource
from snapferry.source.device import DeviceSource
from snapferry.source.file import FileSource
from snapferry.source.stream import StreamSource

STANDARD_INPUT = "-"


def open_source(source: str | os.PathLike[str] | AnySource) -> AnySource:
    """Opens a source by its path, or hands an open one through. ``-`` is standard input; a FIFO is read as one.

    Raises:
        SourceError: it is missing, unreadable, or of a kind that holds no volume.
    """
    if not isinstance(source, (str, os.PathLike)):
        return source
    path = os.fspath(source)
    if path == STANDARD_INPUT:
        return StreamSource.standard_input()
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise SourceError(f"cannot open source {path}: {error.strerror}") from error
    if stat.S_ISBLK(mode):
        return DeviceSource(path)
    if stat.S_ISFIFO(mode):
        return StreamSource.fifo(path)
    if stat.S_ISSOCK(mode):
        raise SourceError(f"source {path} is a socket; a volume is a file, a block device, or comes from a pipe")
    return FileSource(path)
