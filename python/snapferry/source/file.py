"""A regular file as a source: its holes are found with SEEK_DATA and SEEK_HOLE (lseek(2)) and never read.

What of it is in the page cache is taken from there and stays; what is not is not left there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from snapferry.errors import SourceError, SourceReadError
from snapferry.source.descriptor import DescriptorSource, reason

# A file system that knows no holes answers SEEK_DATA with one of these; then all of the file is data.
_NO_SEEK_DATA = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

# No file system asks for more (statx(2), STATX_DIOALIGN).
_DIRECT_ALIGNMENT = 4096


class FileSource(DescriptorSource):
    """Reads a regular file of any length.

    Args:
        path: the file.

    Raises:
        SourceError: it is missing, unreadable, a directory, or not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = os.fspath(path)
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer; regular files do not know it.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise SourceError(f"cannot open source {path}: {reason(error)}") from error
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise SourceError(f"source {path} is a directory; name the image file in it")
            if not stat.S_ISREG(status.st_mode):
                kind = "a character device" if stat.S_ISCHR(status.st_mode) else "not a regular file"
                raise SourceError(f"source {path} is {kind}; a volume is a file, a block device, or comes from a pipe")
        except BaseException:
            os.close(fd)
            raise
        super().__init__(path, fd, status.st_size, _DIRECT_ALIGNMENT)

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The data extents within ``start`` to ``end``; one of everything where the file system knows no holes."""
        end = min(end, self._size)
        at = start
        while at < end:
            try:
                data = os.lseek(self._fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # Nothing but a hole up to the end of the file (or the file ends here: the check at the end tells).
                if error.errno not in _NO_SEEK_DATA:
                    raise SourceReadError(f"source {self._path}: cannot find data from byte {at} on: {reason(error)}", at) from error
                yield at, end - at
                return
            if data >= end:
                return
            hole = min(os.lseek(self._fd, data, os.SEEK_HOLE), end)
            if hole <= data:  # The file was changed between the two calls; take what is left for data.
                hole = end
            yield data, hole - data
            at = hole

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on, in as many reads as it takes."""
        self._fill(offset, buffer, self._read)

    def _read(self, buffer: memoryview, offset: int) -> int:
        try:
            return self._cached.read(buffer, offset)
        except OSError as error:
            raise SourceReadError(f"source {self._path}: cannot read at byte {offset}: {reason(error)}", offset) from error

    def check_unchanged(self) -> None:
        """Compares the file's length with that at the opening."""
        try:
            size = os.fstat(self._fd).st_size
        except OSError as error:
            raise SourceError(f"source {self._path}: cannot look at it again: {reason(error)}") from error
        self._compare_size(size)
