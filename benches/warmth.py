"""Keeps a virtual machine's memory warm and images in the page cache, so that a measurement shows the program and not the host.

Memory that is freed in a virtual machine may go back to its host, and the next touch of each page then costs about ten times
as much: writing 2 GiB takes 6 to 11 s instead of 1 s. As long as the page cache fills the memory, pages are used again and
none goes back. The filler is a sparse file: reading it costs no disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from benches.images import GiB, MiB, data_extents

_FREE = 900 * MiB
_FILLER = 64 * GiB
_STEP = 4 * MiB


class Warmth:
    """Fills free memory with the pages of the sparse file ``filler``, each call from where the last one ended."""

    def __init__(self, filler: Path) -> None:
        self._filler = filler
        self._position = 0

    def keep(self) -> None:
        """Reads until less than 900 MiB are free."""
        buffer = bytearray(_STEP)
        with open(os.open(self._filler, os.O_RDWR | os.O_CREAT, 0o600), "rb", buffering=0) as file:
            os.truncate(file.fileno(), _FILLER)
            for count in range(_FILLER // _STEP):
                if count % 16 == 0 and _free_memory() < _FREE:
                    return
                os.preadv(file.fileno(), [buffer], self._position)
                self._position = (self._position + _STEP) % _FILLER

    def cool(self) -> None:
        """Removes the filler, and its pages with it."""
        self._filler.unlink(missing_ok=True)


def read_through(path: Path, *, holes: bool = False) -> None:
    """Brings a file into the page cache; with ``holes`` their pages of zeros too, for programs that read them."""
    buffer = bytearray(_STEP)
    with open(path, "rb", buffering=0) as file:
        for start, end in [(0, os.fstat(file.fileno()).st_size)] if holes else data_extents(file.fileno()):
            for at in range(start, end, _STEP):
                os.preadv(file.fileno(), [memoryview(buffer)[: end - at]], at)


def _free_memory() -> int:
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemFree:"))
