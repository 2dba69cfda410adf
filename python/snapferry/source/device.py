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

from snapferry.errors import SourceChanged, SourceError, SourceReadError
from snapferry.source.descriptor import DescriptorSource, reason

_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_GONE = frozenset({errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM})


def device_size(fd: int) -> int:
    """The size in bytes of an open block device; ``OSError`` if it has none."""
    (size,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))
    return int(size)


class DeviceSource(DescriptorSource):
    """Reads a block device of any length. It may be in use: whoever wants one point in time names a snapshot of it.

    Args:
        path: the device.

    Raises:
        SourceError: it is missing, unreadable, or no block device.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = os.fspath(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot open source {path}: {reason(error)}") from error
        try:
            if not stat.S_ISBLK(os.fstat(fd).st_mode):
                raise SourceError(f"source {path} is not a block device")
            size = device_size(fd)
            (sector,) = struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))
        except OSError as error:
            os.close(fd)
            raise SourceError(f"source {path} cannot be looked at: {reason(error)}") from error
        except BaseException:
            os.close(fd)
            raise
        super().__init__(path, fd, size, sector)

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """All of it: a device does not tell its holes."""
        end = min(end, self._size)
        if start < end:
            yield start, end - start

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on, in as many reads as it takes. Whole sectors into memory on their boundaries bypass the cache."""
        self._fill(offset, buffer, self._read)

    def _read(self, buffer: memoryview, offset: int) -> int:
        try:
            count = self._direct.read(buffer, offset)
            return self._cached.read(buffer, offset) if count is None else count
        except OSError as error:
            if error.errno in _GONE:
                raise SourceChanged(f"source {self._path} is gone: {reason(error)} at byte {offset}") from error
            raise SourceReadError(
                f"source {self._path}: cannot read {len(buffer)} bytes at byte {offset}: {reason(error)}", offset
            ) from error

    def check_unchanged(self) -> None:
        """Compares the device's size with that at the opening."""
        try:
            size = device_size(self._fd)
        except OSError as error:
            raise SourceChanged(f"source {self._path} is gone: {reason(error)}") from error
        self._compare_size(size)
