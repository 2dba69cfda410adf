"""A block device as a source, read past the page cache (O_DIRECT, open(2)): what is on the device, and nothing of the host's cache pushed out.

The cache of a device may hold what the device has no more, where it is changed from elsewhere: a shared disk, a network block device.
Dirty pages are written out by the kernel before it reads directly.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from snapferry.errors import SourceChanged, SourceError, SourceReadError
from snapferry.source.page_cache import CourteousReader, DirectReader

_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_GONE = frozenset({errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM})


def device_size(fd: int) -> int:
    """The size in bytes of an open block device; ``OSError`` if it has none."""
    (size,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))
    return int(size)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class DeviceSource:
    """Reads a block device of any length. It may be in use: whoever wants one point in time names a snapshot of it.

    Args:
        path: the device.

    Raises:
        SourceError: it is missing, unreadable, or no block device.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot open source {self._path}: {_reason(error)}") from error
        try:
            if not stat.S_ISBLK(os.fstat(self._fd).st_mode):
                raise SourceError(f"source {self._path} is not a block device")
            self._size = device_size(self._fd)
            (sector,) = struct.unpack("i", fcntl.ioctl(self._fd, _BLKSSZGET, bytes(4)))
        except OSError as error:
            os.close(self._fd)
            raise SourceError(f"source {self._path} cannot be looked at: {_reason(error)}") from error
        except BaseException:
            os.close(self._fd)
            raise
        self._direct = DirectReader(self._fd, sector)
        self._cached = CourteousReader(self._fd, self._direct)

    @property
    def name(self) -> str:
        """The device's name without its directories."""
        return Path(self._path).name

    @property
    def size(self) -> int:
        """The device's size when it was opened."""
        return self._size

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """All of it: a device does not tell its holes."""
        end = min(end, self._size)
        if start < end:
            yield start, end - start

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on, in as many reads as it takes. Whole sectors into memory on their boundaries bypass the cache."""
        done = 0
        while done < len(buffer):
            at = offset + done
            try:
                count = self._read(buffer[done:], at)
            except OSError as error:
                if error.errno in _GONE:
                    raise SourceChanged(f"source {self._path} is gone: {_reason(error)} at byte {at}") from error
                raise SourceReadError(
                    f"source {self._path}: cannot read {len(buffer) - done} bytes at byte {at}: {_reason(error)}", at
                ) from error
            if count == 0:
                raise SourceChanged(f"source {self._path} shrank while it was read: it ends at byte {at} and was {self._size} bytes long")
            done += count

    def _read(self, buffer: memoryview, offset: int) -> int:
        count = self._direct.read(buffer, offset)
        return self._cached.read(buffer, offset) if count is None else count

    def check_unchanged(self) -> None:
        """Compares the device's size with that at the opening."""
        try:
            size = device_size(self._fd)
        except OSError as error:
            raise SourceChanged(f"source {self._path} is gone: {_reason(error)}") from error
        if size != self._size:
            how = "shrank" if size < self._size else "grew"
            raise SourceChanged(f"source {self._path} {how} from {self._size} to {size} bytes while it was read")

    def close(self) -> None:
        """Closes the device; a second call does nothing."""
        self._direct.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
