"""Reads of files that leave in the page cache what was there before, and nothing else.

A backup reads everything once. What it brings in would push out what the host's programs work with, for nobody's use. So what is
resident is copied from there, at the speed of memory; what mincore(2) says is not is read past the cache (O_DIRECT), or, where that
cannot be done, through it and dropped again. Where it cannot be told what is resident (mincore answers "all" for files of other
owners), nothing is dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})
_LOWEST_BIT = bytes(value & 1 for value in range(256))  # The others are reserved (mincore(2)).
_LIBC = ctypes.CDLL(None, use_errno=True)


class DirectReader:
    """Reads past the page cache, dirty pages written out before. Safe in several threads.

    Args:
        fd: an open file or block device; it is opened once more by its descriptor, whatever its name means by now.
        alignment: in bytes, of what the file system or device reads.
    """

    def __init__(self, fd: int, alignment: int) -> None:
        self._alignment = alignment
        try:
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT)
        except OSError:  # No file system for it, or no /proc.
            self._fd = -1

    def read(self, buffer: memoryview, offset: int) -> int | None:
        """As preadv(2), as much as is aligned; None where nothing is, or it cannot be done. Raises ``OSError``."""
        whole = len(buffer) - len(buffer) % self._alignment
        if self._fd < 0 or not whole or offset % self._alignment:
            return None
        try:
            return os.preadv(self._fd, [buffer[:whole]], offset)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            return None  # The memory does not lie as it should, or the file system changed its mind.

    def close(self) -> None:
        """Closes its own descriptor; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class CourteousReader:
    """Reads ``fd``, which stays its caller's, as the module says. Safe in several threads.

    Where all was resident so far it goes on that way (RWF_NOWAIT, which costs nothing), until a page is not. That attempt may bring
    the rest of its range in (the kernel begins to read although it does not wait), which stays: one read's worth at most for each
    place where what is resident ends.
    """

    def __init__(self, fd: int, direct: DirectReader) -> None:
        self._fd = fd
        self._direct = direct
        self._courteous = True
        self._resident = False
        self._brought_in = 0  # Pages below may be there because of an attempt of ours: they say nothing of what follows.
        # Read-ahead would bring pages in that nobody asked for, and that the next read would take for the host's.
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, buffer: memoryview, offset: int) -> int:
        """As preadv(2): up to ``len(buffer)`` bytes from ``offset`` on; 0 at the end. Raises ``OSError``."""
        if self._courteous and self._resident:
            count = self._at_once(buffer, offset)
            if count:
                return count
        foreign = self._not_resident(offset, len(buffer)) if self._courteous else []
        self._resident = not foreign and offset >= self._brought_in
        if sum(length for _, length in foreign) >= len(buffer):
            count = self._direct.read(buffer, offset) or 0
            if count:
                return count
        count = os.preadv(self._fd, [buffer], offset)
        for start, length in foreign:
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, start, length, os.POSIX_FADV_DONTNEED)
        return count

    def _at_once(self, buffer: memoryview, offset: int) -> int:
        """What is resident, up to the first page that is not."""
        try:
            count = os.preadv(self._fd, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            count = 0
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._courteous = False  # A file system that cannot tell.
            return 0
        if count < len(buffer):
            self._resident = False
            self._brought_in = max(self._brought_in, offset + len(buffer))
        return count

    def _not_resident(self, offset: int, length: int) -> list[tuple[int, int]]:
        """(offset, length) of the whole pages of the range that are not in the cache; none where that cannot be told."""
        start = offset - offset % mmap.PAGESIZE
        try:
            vector = resident(self._fd, start, offset + length - start)
        except (OSError, ValueError):
            return []
        runs: list[tuple[int, int]] = []
        at = vector.find(0)
        while at >= 0:
            end = vector.find(1, at)
            end = len(vector) if end < 0 else end
            runs.append((start + at * mmap.PAGESIZE, (end - at) * mmap.PAGESIZE))
            at = vector.find(0, end)
        return runs


def resident(fd: int, start: int, length: int) -> bytes:
    """One byte for each page of the range, 1 where it is in the page cache, else 0. ``start`` lies on a page's boundary.

    Raises:
        OSError, ValueError: it cannot be told, because the range does not lie within the file for instance.
    """
    # Private and writable only because ctypes takes no read-only memory; it is never touched.
    with mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=start) as mapping:
        vector = (ctypes.c_ubyte * -(-length // mmap.PAGESIZE))()
        memory = (ctypes.c_char * length).from_buffer(mapping)
        try:
            if _LIBC.mincore(ctypes.byref(memory), ctypes.c_size_t(length), vector) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            del memory  # The mapping cannot be closed while it is pointed at.
    return bytes(vector).translate(_LOWEST_BIT)
