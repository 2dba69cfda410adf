"""Objects as files below a directory: a disk, a mounted share.

A key is the file's path below the root; ``tmp/`` below it holds what is being written. Everything that may block runs in threads of the
destination's own. What a cancelled call began in a thread is waited for, so that no thread ever touches a buffer that its owner took back.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import secrets
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from typing_extensions import Buffer

from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.descriptors import Descriptors, open_regular
from snapferry.destination.durable import Abandoned, Step, rename_exclusive, sync_directory, write_synced
from snapferry.destination.file_errors import translated
from snapferry.destination.keys import RESERVED, check_key, check_prefix
from snapferry.destination.off_loop import outlasted
from snapferry.destination.walking import walk
from snapferry.errors import (
    DestinationError,
    DestinationUnreachable,
    ObjectDamaged,
    ObjectNotFound,
)

STALE_AFTER = 24 * 3600.0
"""Seconds after which a temporary file has no writer any more."""

_CAPABILITIES = Capabilities(exclusive_create=True, consistent_list=True, concurrency=3, durable=True)
_OPEN_FILES = 16
_LIST_BATCH = 1024

_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")


class FileDestination:
    """A directory as a destination; it must exist. ``open`` also looks whether it does.

    Arguments:
        name: of this destination in the configuration.
        root: the directory's absolute path.
    """

    def __init__(self, name: str, root: str) -> None:
        self._name = name
        self._root = os.path.abspath(root)
        self._threads = ThreadPoolExecutor(max_workers=2 * _CAPABILITIES.concurrency, thread_name_prefix=f"destination-{name}")
        self._descriptors = Descriptors(_OPEN_FILES)
        # Directories whose own names are known to be durable.
        self._durable_directories: set[str] = set()
        # Which directory the root was when it was first looked at: (device, inode).
        self._place: tuple[int, int] | None = None
        self._closed = False

    @classmethod
    async def open(cls, name: str, root: str, *, writable: bool) -> FileDestination:
        """Opens the directory ``root``; for writing, old temporary files in it are removed.

        Raises:
            DestinationUnreachable: it is missing, or no directory. DestinationDenied: it may not be read, or written.
        """
        destination = cls(name, root)
        try:
            await destination._run("", destination._look, writable)
        except BaseException:
            await destination.close()
            raise
        return destination

    @staticmethod
    async def make_root(name: str, root: str) -> None:
        """Makes the directory ``root``, and those above it that are missing, durably. One that is there is left as it is."""

        def make() -> None:
            missing: list[str] = []
            path = os.path.abspath(root)
            while not os.path.isdir(path):
                missing.append(path)
                path = os.path.dirname(path)
            for path in reversed(missing):
                try:
                    os.mkdir(path, 0o700)
                except FileExistsError:
                    if not os.path.isdir(path):
                        raise DestinationError(f"{path} is not a directory", name) from None
                sync_directory(os.path.dirname(path))

        try:
            await asyncio.to_thread(make)
        except OSError as error:
            raise translated(error, name, root) from error

    @property
    def name(self) -> str:
        """The name of this destination in the configuration."""
        return self._name

    @property
    def url(self) -> str:
        """``file://`` and the root's path."""
        return "file://" + quote(self._root)

    @property
    def capabilities(self) -> Capabilities:
        """Everything: the file system refuses a second create, lists what is there, and is synced."""
        return _CAPABILITIES

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores ``data`` under ``key`` unless it is taken; durable on return. The bytes are written from where they are, not copied."""
        check_key(key)
        return await self._run(key, self._create, key, memoryview(data).cast("B"))

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object; ``ObjectDamaged`` if it is longer than ``limit`` bytes."""
        return await self._run(check_key(key), self._read, key, limit)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on, straight from the file; ``ObjectDamaged`` if the object ends before it is full."""
        check_key(key)
        if offset < 0:
            raise ValueError(f"negative offset {offset}")
        await self._run(key, self._read_into, key, offset, buffer.cast("B"))

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes at most, and the object's size."""
        return await self._run(check_key(key), self._read_tail, key, length)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``. Symbolic links, hidden files and ``tmp/`` are no objects."""
        check_prefix(prefix)
        objects = self._walk(prefix)
        while batch := await self._run(prefix, self._next_batch, objects):
            for item in batch:
                yield item

    async def list_keys(self, prefix: str) -> Sequence[str]:
        """The keys that ``list`` would name, without a look at each file: a fifth of its time."""
        check_prefix(prefix)
        return await self._run(prefix, self._keys, prefix)

    async def free_bytes(self) -> int:
        """See ``TellsSpace``: what its file system gives to this user."""

        def look(_step: Step) -> int:
            found = os.statvfs(self._root)
            return found.f_bavail * found.f_frsize

        return await self._run("", look)

    async def delete(self, key: str) -> None:
        """Removes the object and syncs its directory; one that is not there is no error."""
        await self._run(check_key(key), self._delete, key)

    async def close(self) -> None:
        """Waits for the threads and closes the files."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._threads.shutdown, wait=True)
            self._descriptors.close()

    # Below: in the event loop.

    async def _run(
        self, key: str, work: Callable[Concatenate[Step, _Arguments], _Result], *args: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        """Runs ``work`` in a thread. A cancelled caller gets its cancellation when the thread has come to its next step and undone its work.

        ``work`` is no closure: a traceback keeps the functions it went through, and they would keep the buffer of a failed call.
        """
        abandoned = threading.Event()

        def step() -> None:
            if abandoned.is_set():
                raise Abandoned

        future = asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(work, step, *args, **named))
        try:
            return await outlasted(future, abandoned.set)
        except OSError as error:
            raise self._error(error, key) from error

    # Below: in a thread.

    def _create(self, step: Step, key: str, data: memoryview) -> bool:
        try:
            self._check_root()
            created = self._create_below_root(step, key, data)
            # Again: what was written while the root was unmounted lies below the mount point, where nobody will look for it.
            self._check_root()
            return created
        except FileNotFoundError as error:
            # Somebody removed a directory that was there: the next attempt makes it anew.
            self._durable_directories.clear()
            if not os.path.isdir(self._root):
                raise
            raise DestinationUnreachable(f"a directory above {key} vanished while it was written", self._name) from error

    def _create_below_root(self, step: Step, key: str, data: memoryview) -> bool:
        path = self._path(key)
        directory = os.path.dirname(path)
        if os.path.lexists(path):
            # Whoever created it may not have come to this yet.
            sync_directory(directory)
            return False
        self._make_directory(directory)
        temporary = self._temporary()
        write_synced(temporary, data, step)
        try:
            created = rename_exclusive(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        if not created:
            os.unlink(temporary)
        sync_directory(directory)
        return created

    def _temporary(self) -> str:
        directory = os.path.join(self._root, RESERVED)
        self._make_directory(directory)
        return os.path.join(directory, secrets.token_hex(16))

    def _make_directory(self, path: str) -> None:
        """Makes the directory and those above it, up to the root, and sees that their names are durable."""
        if path == self._root or path in self._durable_directories:
            return
        parent = os.path.dirname(path)
        self._make_directory(parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        # Also if it was there: whoever made it may not have synced its name yet.
        sync_directory(parent)
        self._durable_directories.add(path)

    def _read(self, step: Step, key: str, limit: int) -> bytes:
        descriptor = open_regular(self._path(key))
        try:
            size = os.fstat(descriptor).st_size
            if size > limit:
                raise ObjectDamaged(f"{key} has {size} bytes where at most {limit} are expected", self._name)
            data = bytearray(size)
            self._fill(step, key, descriptor, 0, memoryview(data))
            return bytes(data)
        finally:
            os.close(descriptor)

    def _read_into(self, step: Step, key: str, offset: int, view: memoryview) -> None:
        with self._descriptors.lease(self._path(key)) as descriptor:
            self._fill(step, key, descriptor, offset, view)

    def _read_tail(self, step: Step, key: str, length: int) -> tuple[bytes, int]:
        with self._descriptors.lease(self._path(key)) as descriptor:
            size = os.fstat(descriptor).st_size
            tail = bytearray(min(size, length))
            self._fill(step, key, descriptor, size - len(tail), memoryview(tail))
            return bytes(tail), size

    def _fill(self, step: Step, key: str, descriptor: int, offset: int, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            step()
            count = os.preadv(descriptor, [view[filled:]], offset + filled)
            if count == 0:
                raise ObjectDamaged(f"{key} ends at {offset + filled}, before {offset + len(view)}", self._name)
            filled += count

    def _next_batch(self, _step: Step, objects: Iterator[ObjectInfo]) -> tuple[ObjectInfo, ...]:
        return tuple(islice(objects, _LIST_BATCH))

    def _keys(self, step: Step, prefix: str) -> Sequence[str]:
        keys = []
        for key, _ in walk(self._root, prefix):
            keys.append(key)
            if len(keys) % _LIST_BATCH == 0:
                step()
        self._check_root()
        return keys

    def _walk(self, prefix: str) -> Iterator[ObjectInfo]:
        for key, entry in walk(self._root, prefix):
            try:
                yield ObjectInfo(key, entry.stat(follow_symlinks=False).st_size)
            except FileNotFoundError:
                continue
        self._check_root()  # What was not found vanished, unless the root itself did.

    def _delete(self, _step: Step, key: str) -> None:
        path = self._path(key)
        self._descriptors.drop(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            if not os.path.isdir(self._root):
                raise
        except NotADirectoryError:
            return
        if os.path.isdir(directory := os.path.dirname(path)):
            sync_directory(directory)

    def _look(self, _step: Step, writable: bool) -> None:
        if not os.path.isdir(self._root):
            # stat tells a missing directory from one that may not be looked at.
            os.stat(self._root)
            raise NotADirectoryError(errno.ENOTDIR, "is not a directory", self._root)
        self._check_root()
        wanted = os.R_OK | os.X_OK | (os.W_OK if writable else 0)
        if not os.access(self._root, wanted):
            raise PermissionError(
                errno.EACCES, "may not be written" if os.access(self._root, os.R_OK | os.X_OK) else "may not be read", self._root
            )
        if writable:
            self._remove_stale()

    def _check_root(self) -> None:
        """Raises unless the root is the directory it was: where a disk was unmounted there is an empty one of the same name."""
        status = os.stat(self._root)
        place = (status.st_dev, status.st_ino)
        self._place = self._place or place
        if place != self._place:
            raise DestinationUnreachable(f"{self._root} is another directory than when it was opened; was it unmounted?", self._name)

    def _remove_stale(self) -> None:
        try:
            with os.scandir(os.path.join(self._root, RESERVED)) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > STALE_AFTER:
                            os.unlink(entry.path)
                    except FileNotFoundError:
                        continue
        except FileNotFoundError:
            return

    def _path(self, key: str) -> str:
        return os.path.join(self._root, key)

    def _error(self, error: OSError, key: str) -> DestinationError:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if missing and key and os.path.isdir(self._root):
            return ObjectNotFound(f"{key} does not exist", self._name)
        return translated(error, self._name, self._root, key)
