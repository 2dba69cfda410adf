"""A few files kept open for reading, so that ranges of one pack do not each open it again. Thread-safe; knows only paths."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Open:
    descriptor: int
    users: int = 0
    dropped: bool = False


def open_regular(path: str) -> int:
    """Opens a regular file for reading. ``IsADirectoryError`` for a directory, ``OSError`` for a pipe or device (which is not waited for)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(path)
    raise OSError(f"{path} is not a regular file")


class Descriptors:
    """At most ``capacity`` idle open files, the least recently used closed first; those in use are never closed.

    Invariant: a descriptor is closed exactly when it is dropped from ``_files`` and nobody uses it.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._files: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def lease(self, path: str) -> Iterator[int]:
        """A descriptor of ``path``, for the time of the ``with`` block. ``OSError`` as ``open_regular`` raises it."""
        entry = self._take(path)
        try:
            yield entry.descriptor
        finally:
            with self._lock:
                entry.users -= 1
                if entry.dropped and not entry.users:
                    os.close(entry.descriptor)

    def drop(self, path: str) -> None:
        """Forgets ``path``: the next lease opens it anew."""
        with self._lock:
            self._drop(path)

    def close(self) -> None:
        """Forgets everything."""
        with self._lock:
            for path in tuple(self._files):
                self._drop(path)

    def _take(self, path: str) -> _Open:
        with self._lock:
            entry = self._files.get(path)
            # An unlinked file is not what the name says any more; another process may have put a good one in its place.
            if entry is not None and os.fstat(entry.descriptor).st_nlink == 0:
                self._drop(path)
                entry = None
            if entry is not None:
                self._files.move_to_end(path)
                entry.users += 1
                return entry
        opened = _Open(open_regular(path), users=1)
        with self._lock:
            self._drop(path)
            self._files[path] = opened
            while len(self._files) > self._capacity:
                self._drop(next(iter(self._files)))
        return opened

    def _drop(self, path: str) -> None:
        entry = self._files.pop(path, None)
        if entry is not None:
            entry.dropped = True
            if not entry.users:
                os.close(entry.descriptor)
