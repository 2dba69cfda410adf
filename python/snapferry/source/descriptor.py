"""What files and devices have in common as sources: an open descriptor of a known size, read at an offset until the buffer is full."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from snapferry.errors import SourceChanged
from snapferry.source.page_cache import CourteousReader, DirectReader


def reason(error: OSError) -> str:
    """What the system says of it."""
    return error.strerror or str(error)


class DescriptorSource:
    """A source of the ``size`` bytes of ``fd``, which it closes.

    Args:
        alignment: in bytes, of reads that bypass the page cache.
    """

    def __init__(self, path: str, fd: int, size: int, alignment: int) -> None:
        self._path = path
        self._fd = fd
        self._size = size
        self._direct = DirectReader(fd, alignment)
        self._cached = CourteousReader(fd, self._direct)

    @property
    def name(self) -> str:
        """Its file name without directories."""
        return Path(self._path).name

    @property
    def size(self) -> int:
        """Its size in bytes when it was opened."""
        return self._size

    def _fill(self, offset: int, buffer: memoryview, read: Callable[[memoryview, int], int]) -> None:
        """Fills ``buffer`` from ``offset`` on, in as many reads as it takes. ``SourceChanged`` where the source ends before."""
        done = 0
        while done < len(buffer):
            at = offset + done
            count = read(buffer[done:], at)
            if count == 0:
                raise SourceChanged(f"source {self._path} shrank while it was read: it ends at byte {at} and was {self._size} bytes long")
            done += count

    def _compare_size(self, size: int) -> None:
        """``SourceChanged`` if ``size`` is not what it was at the opening."""
        if size != self._size:
            how = "shrank" if size < self._size else "grew"
            raise SourceChanged(f"source {self._path} {how} from {self._size} to {size} bytes while it was read")

    def close(self) -> None:
        """Closes it; a second call does nothing."""
        self._direct.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
