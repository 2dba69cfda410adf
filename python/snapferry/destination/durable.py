"""Files that are there whole or not at all, and stay there: the few system calls of it, blocking, knowing nothing of destinations.

The order is restic's (internal/backend/local): temporary file, write, length, fsync, rename without replacing, fsync of the directory.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from typing import Protocol

WRITE_STEP = 8 << 20
"""So many bytes are written between two looks at whether anybody still wants them."""

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAMEAT2_UNKNOWN = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


class Abandoned(Exception):
    """Nobody waits for the work any more; it was undone."""


class Step(Protocol):
    """Called between two steps of a long piece of work; raises ``Abandoned`` when it should end."""

    def __call__(self) -> None: ...


def sync_directory(path: str) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: str, data: memoryview, step: Step) -> None:
    """Creates the file ``path`` (mode 0600, nothing may be there) with ``data`` (bytes) in it, synced; its name is not yet.

    After an error or ``Abandoned`` the file is gone again.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            written = 0
            while written < len(data):
                step()
                written += os.write(descriptor, data[written : written + WRITE_STEP])
            step()
            os.fsync(descriptor)
            length = os.fstat(descriptor).st_size
            if length != len(data):
                raise OSError(errno.EIO, f"the file has {length} bytes after {len(data)} were written", path)
        finally:
            os.close(descriptor)
        step()
    except BaseException:
        os.unlink(path)
        raise


@functools.cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


def rename_exclusive(old: str, new: str) -> bool:
    """Renames ``old`` to ``new`` unless ``new`` exists; returns whether it did. ``old`` is left if not.

    Where the C library or the file system does not know ``renameat2(RENAME_NOREPLACE)``, a hard link does the same (link(2): never replaces).
    """
    renameat2 = _renameat2()
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.EEXIST:
            return False
        if code not in _RENAMEAT2_UNKNOWN:
            raise OSError(code, os.strerror(code), new)
    return link_exclusive(old, new)


def link_exclusive(old: str, new: str) -> bool:
    """As ``rename_exclusive``, by ``link`` and ``unlink``."""
    try:
        os.link(old, new, follow_symlinks=False)
    except FileExistsError:
        return False
    os.unlink(old)
    return True
