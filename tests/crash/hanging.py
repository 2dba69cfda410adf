"""Run by the tests of signals instead of the program: the command line with reads or writes that block in the kernel for ever, as those of a
dead device or a dead mount do.

Usage: hanging.py PATH ARGUMENT...: every read of the source PATH, and every write below the directory PATH, blocks; FILE.hangs is made then.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from snapferry.cli.main import main
from snapferry.destination import file as destination
from snapferry.source import FileSource

DEAD = sys.argv.pop(1)
_PIPE, _OTHER_END = os.pipe()


def block() -> None:
    """Never returns: nobody writes into the pipe."""
    Path(f"{DEAD}.hangs").touch()
    os.read(_PIPE, 1)


_read_into, _write_synced = FileSource.read_into, vars(destination)["write_synced"]


def read_into(self: FileSource, offset: int, buffer: memoryview) -> None:
    """Of a source."""
    if vars(self)["_path"] == DEAD:
        block()
    _read_into(self, offset, buffer)


def write_synced(path: str, *rest: Any) -> None:
    """Of a destination."""
    if path.startswith(DEAD + "/"):
        block()
    _write_synced(path, *rest)


if __name__ == "__main__":
    FileSource.read_into = read_into  # type: ignore[method-assign]
    vars(destination)["write_synced"] = write_synced
    main()
