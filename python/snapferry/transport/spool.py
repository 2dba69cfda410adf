"""Objects on the local disk that a slow or absent destination has not taken yet: bounded, encrypted as they are, named by their content.

Each process that spools has a directory of its own below the root, locked while it lives. What one left behind, because it was killed or its
destination never came back, the next one finds (``leftovers``): a place to copy packs from, checked against their names as any replica's are.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from typing_extensions import Buffer

from snapferry.destination.file import FileDestination
from snapferry.errors import DestinationError, DestinationFull

_LOCK = "lock"
_PREFIX = "spool-"
_NAME = re.compile(rf"{_PREFIX}[0-9a-f]{{16}}")


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """Bytes that are kept now, the most there were, and how many there may be."""

    used: int
    peak: int
    limit: int


@dataclass(slots=True, eq=False)
class _Kept:
    size: int
    written: asyncio.Future[None]
    users: int = 0


class Spool:
    """One process's spool; an async context. Its directory comes with the first object, and goes with the last.

    Arguments:
        root: directory of all spools of one repository.
        limit: bytes that they hold at most together, leftovers included.
    """

    def __init__(self, root: str, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._elsewhere = 0
        self._used = 0
        self._peak = 0
        self._kept: dict[str, _Kept] = {}
        self._opening = asyncio.Lock()
        self._opened: tuple[FileDestination, str, int] | None = None

    async def __aenter__(self) -> Self:
        """Makes nothing yet."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Leaves what nobody has taken for the next process."""
        opened, self._opened = self._opened, None
        if opened is not None:
            store, path, lock = opened
            await store.close()
            if not self._kept:
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            os.close(lock)

    async def put(self, key: str, data: Buffer, size: int) -> None:
        """Keeps an object of ``size`` bytes until ``drop`` was called as often as this.

        Raises:
            DestinationFull: it has no room for it, or the disk has none. DestinationError: it cannot be written.
        """
        kept = self._kept.get(key)
        if kept is None:
            kept = await self._write(key, data, size)
        elif not kept.written.done():
            await asyncio.shield(kept.written)
            if self._kept.get(key) is not kept:
                await self.put(key, data, size)
                return
        kept.users += 1

    async def read_into(self, key: str, buffer: memoryview) -> None:
        """Fills ``buffer`` with the whole object; raises as ``Destination.read_into``."""
        await (await self._store()).read_into(key, 0, buffer)

    async def drop(self, key: str) -> None:
        """One of those that put it needs it no more; after the last it goes. Trouble is passed over, since it is only a copy."""
        kept = self._kept[key]
        kept.users -= 1
        if not kept.users:
            self._used -= kept.size
            # Who puts it again meanwhile waits: else what is written then would go too.
            going = self._kept[key] = _Kept(0, asyncio.get_running_loop().create_future())
            try:
                with contextlib.suppress(DestinationError):
                    await (await self._store()).delete(key)
            finally:
                del self._kept[key]
                going.written.set_result(None)

    def statistics(self) -> SpoolStatistics:
        """All figures at once."""
        return SpoolStatistics(self._used, self._peak, self._limit)

    async def _write(self, key: str, data: Buffer, size: int) -> _Kept:
        kept = self._kept[key] = _Kept(size, asyncio.get_running_loop().create_future())
        self._used += size
        try:
            _, path, _ = await self._open()
            if self._used + self._elsewhere > self._limit:
                raise DestinationFull(f"the spool at {self._root} may hold no more than {self._limit} bytes", "spool")
            await asyncio.to_thread(_write, os.path.join(path, key), data)
        except BaseException:
            del self._kept[key]
            self._used -= size
            raise
        finally:
            kept.written.set_result(None)
        self._peak = max(self._peak, self._used)
        return kept

    async def _store(self) -> FileDestination:
        return (await self._open())[0]

    async def _open(self) -> tuple[FileDestination, str, int]:
        async with self._opening:
            if self._opened is None:
                self._elsewhere = await asyncio.to_thread(_size_below, self._root)
                path = os.path.join(self._root, _PREFIX + secrets.token_hex(8))
                lock = await self._make(path)
                self._opened = await FileDestination.open("spool", path, writable=True), path, lock
            return self._opened

    async def _make(self, path: str) -> int:
        """The directory ``path``, which nobody finds before it is locked; returns the descriptor that holds the lock."""
        unseen = f"{path}.new"
        await FileDestination.make_root("spool", unseen)
        lock = await asyncio.to_thread(_lock, unseen)
        assert lock is not None
        os.rename(unseen, path)
        return lock


class Leftovers:
    """What spools of processes that are gone hold: ``sources`` to read from, by name."""

    def __init__(self) -> None:
        self._opened: list[tuple[FileDestination, str, int]] = []

    @property
    def sources(self) -> dict[str, FileDestination]:
        """One for each of them; all are asked before any destination is."""
        return {store.name: store for store, _, _ in self._opened}

    async def discard(self) -> None:
        """All of it is where it should be, or is of no use."""
        for _, path, _ in self._opened:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


@asynccontextmanager
async def leftovers(root: str) -> AsyncIterator[Leftovers]:
    """Takes over the spools below ``root`` whose processes are gone, for as long as the block runs."""
    taken = Leftovers()
    try:
        for number, path in enumerate(await asyncio.to_thread(_directories, root)):
            lock = await asyncio.to_thread(_lock, path)
            if lock is not None:
                # Named so that no destination of a configuration, whose names begin with a letter or digit, is meant.
                taken._opened.append((FileDestination(f"(spool {number})", path), path, lock))  # noqa: SLF001
        yield taken
    finally:
        for store, _, lock in taken._opened:  # noqa: SLF001
            await store.close()
            os.close(lock)


def _write(path: str, data: Buffer) -> None:
    """A file with the object, under its name once it is whole. Not synced: whoever reads it compares it with its name."""
    unfinished = f"{os.path.dirname(path)}/.{secrets.token_hex(8)}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0) as file:
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[file.write(rest) :]
        os.rename(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (DestinationFull if full else DestinationError)(f"{path}: {error.strerror}", "spool") from error


def _directories(root: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry.path for entry in os.scandir(root) if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False))
    return []


def _lock(path: str) -> int | None:
    """A descriptor that holds the lock of a spool's directory until it is closed; None if a living process has it, or it is gone."""
    try:
        descriptor = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _size_below(root: str) -> int:
    total = 0
    for path in _directories(root):
        for directory, _, files in os.walk(path):
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(os.path.join(directory, file)).st_size
    return total
