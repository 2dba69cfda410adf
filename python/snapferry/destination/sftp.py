"""Objects as files below a directory of a host that speaks SFTP.

A key is the file's path below the root; ``tmp/`` below it holds what is being written. An object is written there, synced where the server can, and
given its name by a hard link, which fails where the name is taken; where the server makes no links, by the protocol's own rename, which must not
replace anything. Which of these the server keeps to is tried out where the options do not say it, and ``capabilities`` say it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from functools import partial

import asyncssh
from typing_extensions import Buffer

from snapferry.config.sftp_place import SftpPlace
from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.keys import RESERVED, check_key, check_prefix, is_key_below
from snapferry.destination.sftp_client import Call, Connection, check_options
from snapferry.destination.sftp_errors import MISSING, reason
from snapferry.destination.sftp_naming import give_name, kind_of, prove_naming
from snapferry.destination.sftp_transfer import Ended, opened_file, read_all, write_all
from snapferry.errors import DestinationError, DestinationFull, DestinationUnreachable, ObjectDamaged, ObjectNotFound

STALE_AFTER = 24 * 3600
"""Seconds after which a temporary file has no writer any more."""

_CONCURRENCY = 4
_DIRECTORIES_AT_ONCE = 16
_TEMPORARY_LENGTH = 32
_ROOM = 64 << 10

# In the class below ``list`` is a method.
Objects = list[ObjectInfo]
Prefixes = list[str]


class SftpDestination:
    """A directory on a host as a destination; ``open`` makes one.

    Arguments:
        name: of this destination in the configuration.
        place: where it is.
    """

    def __init__(self, name: str, place: SftpPlace) -> None:
        self._name = name
        self._place = place
        self._connection = Connection(name, place)
        self._syncs = True
        self._directories: set[str] = set()
        # Which file system the root was on when it was first looked at, if the server says so.
        self._file_system: int | None = None

    @classmethod
    async def open(cls, name: str, place: SftpPlace, *, writable: bool) -> SftpDestination:
        """Connects and looks for the directory; for writing, tries out how names are given unless that is noted, and clears away what killed
        writers left.

        Raises:
            DestinationUnreachable: no answer, or no such directory. DestinationDenied: a key is not accepted, ours or the host's.
        """
        check_options(place, f"destination {name}")
        destination = cls(name, place)
        try:
            async with destination._calling(destination.url) as call:
                await destination._check_root(call)
            if writable:
                if place.naming is None or place.conditional_put is None:
                    await destination.prove()
                await destination._clear_stale()
        except BaseException:
            await destination.close()
            raise
        return destination

    @staticmethod
    async def make_root(name: str, place: SftpPlace) -> None:
        """Makes the directory, if it is missing and the one above it is there."""
        check_options(place, f"destination {name}")
        connection = Connection(name, place)
        try:
            async with connection.calling(place.url) as call:
                if not await call.client.isdir(place.path):
                    await call.client.mkdir(place.path, asyncssh.SFTPAttrs(permissions=0o700))
        except ObjectNotFound as error:
            raise DestinationUnreachable(f"{place.url}: the directory above it is missing", name, retryable=False) from error
        finally:
            await connection.close()

    @property
    def name(self) -> str:
        """The name of this destination in the configuration."""
        return self._name

    @property
    def url(self) -> str:
        """User, host and path."""
        return self._place.url

    @property
    def capabilities(self) -> Capabilities:
        """As exclusive as is noted or was proved; durable where the server syncs files on demand (the names it cannot: ``docs/operations.md``)."""
        return Capabilities(self._place.conditional_put is not False, consistent_list=True, concurrency=_CONCURRENCY, durable=self._syncs)

    async def prove(self) -> Mapping[str, object]:
        """Finds out how names can be given, and whether one that is taken is refused, by doing so.

        Returns:
            The options to note it with.
        """
        paths = [self._temporary() for _ in range(3)]
        async with self._calling(self.url, _ROOM) as call:
            with self._tidied(call, *paths):
                await self._make_directory(call, RESERVED)
                for path in paths[:2]:
                    await self._write(call, path, memoryview(path.encode()))
                naming, exclusive = await prove_naming(call, *paths)
        self._place = replace(self._place, naming=naming, conditional_put=exclusive)
        return {"naming": naming, "conditional_put": exclusive}

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores ``data`` under ``key`` unless it is taken."""
        check_key(key)
        with memoryview(data).cast("B") as view:
            try:
                async with self._calling(key, view.nbytes) as call:
                    return await self._create(call, key, view)
            except ObjectNotFound as error:
                # Somebody removed a directory that was there: the next attempt makes it anew.
                self._directories.clear()
                raise DestinationUnreachable(f"a directory above {key} vanished while it was written", self._name) from error

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object; ``ObjectDamaged`` if it is longer than ``limit`` bytes."""
        check_key(key)
        async with self._calling(key) as call:
            size = await self._size(call, key)
            if size > limit:
                raise ObjectDamaged(f"{key} has {size} bytes where at most {limit} are expected", self._name)
            data = bytearray(size)
            await self._fill(call, key, 0, memoryview(data))
            return bytes(data)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on; ``ObjectDamaged`` if the object ends before it is full."""
        check_key(key)
        if offset < 0:
            raise ValueError(f"negative offset {offset}")
        with buffer.cast("B") as view:
            async with self._calling(key) as call:
                if not view.nbytes:
                    await self._size(call, key)
                await self._fill(call, key, offset, view)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes at most, and the object's size."""
        check_key(key)
        async with self._calling(key) as call:
            size = await self._size(call, key)
            data = bytearray(min(length, size))
            await self._fill(call, key, size - len(data), memoryview(data))
            return bytes(data), size

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object below ``prefix``; a few directories are read side by side. Symbolic links, hidden files and ``tmp/`` are no objects."""
        check_prefix(prefix)
        pending = [prefix]
        while pending:
            now, pending = pending[:_DIRECTORIES_AT_ONCE], pending[_DIRECTORIES_AT_ONCE:]
            reading = [asyncio.ensure_future(self._directory(above)) for above in now]
            try:
                found = await asyncio.gather(*reading)
            finally:
                for one in reading:
                    one.cancel()
            for objects, below in found:
                pending += below
                for info in objects:
                    yield info
        async with self._calling(self.url) as call:
            await self._check_root(call)  # What was not found vanished, unless the root itself did.

    async def delete(self, key: str) -> None:
        """Removes the object; one that is not there is no error."""
        check_key(key)
        with contextlib.suppress(ObjectNotFound):
            async with self._calling(key) as call:
                try:
                    await call.client.remove(self._path(key))
                except asyncssh.SFTPFailure as error:
                    if await kind_of(call, self._path(key)) == "file":
                        raise
                    raise ObjectNotFound(f"{key} does not exist", self._name) from error

    async def close(self) -> None:
        """Ends the connection."""
        await self._connection.close()

    # Below: what a call is made of.

    @contextlib.asynccontextmanager
    async def _calling(self, key: str, room: int = 0) -> AsyncIterator[Call]:
        """A call for ``key``. What is not found is missing only if the root is there; and what fails may fail for want of ``room`` bytes."""
        async with self._connection.calling(key) as call:
            try:
                yield call
            except (*MISSING, ObjectNotFound):
                await self._check_root(call)
                raise
            except asyncssh.SFTPFailure as error:
                # The third version of the protocol has one word for everything.
                if room and await self._is_full(call, room):
                    raise DestinationFull(f"{key}: no space left on {self._place.host}: {reason(error)}", self._name) from error
                raise

    async def _create(self, call: Call, key: str, view: memoryview) -> bool:
        path, temporary = self._path(key), self._temporary()
        if self._place.conditional_put is False and await kind_of(call, path) is not None:
            return False  # a server that may replace what is there is not asked to
        await self._make_directory(call, RESERVED)
        with self._tidied(call, temporary):
            await self._write(call, temporary, view)
            await self._make_directory(call, key.rpartition("/")[0])
            created = await give_name(call, self._place.naming or "link", temporary, path)
            # Only now: what was written while the root was unmounted lies below the mount point, where nobody will look for it.
            await self._check_root(call)
        return created

    @contextlib.contextmanager
    def _tidied(self, call: Call, *temporaries: str) -> Iterator[None]:
        """Removes these files, if they are there, once the call is over. What cannot be removed goes with a later opening."""
        try:
            yield
        finally:
            call.afterwards += [partial(call.client.remove, path) for path in temporaries]

    async def _write(self, call: Call, path: str, view: memoryview) -> None:
        async with opened_file(call, path, "xb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
            await write_all(call, file, view)
            if self._syncs:
                try:
                    await call.step(file.fsync())
                except asyncssh.SFTPOpUnsupported:
                    self._syncs = False
            size = (await call.step(file.stat())).size
            if size is not None and size != view.nbytes:
                raise asyncssh.SFTPFailure(f"the file has {size} bytes after {view.nbytes} were written")

    async def _make_directory(self, call: Call, directory: str) -> None:
        if directory in self._directories or not directory:
            return
        await self._make_directory(call, directory.rpartition("/")[0])
        path = self._path(directory)
        try:
            await call.step(call.client.mkdir(path, asyncssh.SFTPAttrs(permissions=0o700)))
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if await kind_of(call, path) != "directory":
                raise
        self._directories.add(directory)

    async def _size(self, call: Call, key: str) -> int:
        try:
            found = await call.step(call.client.lstat(self._path(key)))
        except asyncssh.SFTPFailure as error:
            # A file where a directory should be: some servers say no more than that it failed.
            raise ObjectNotFound(f"{key} does not exist", self._name) from error
        if found.permissions is not None and not stat.S_ISREG(found.permissions):
            raise ObjectNotFound(f"{key} does not exist", self._name)
        if found.size is None:
            raise DestinationError(f"{key}: the server does not tell its size", self._name)
        return found.size

    async def _fill(self, call: Call, key: str, offset: int, view: memoryview) -> None:
        if not view.nbytes:
            return
        try:
            async with opened_file(call, self._path(key), "rb") as file:
                await read_all(call, file, offset, view)
        except Ended:
            raise ObjectDamaged(f"{key} ends before {offset + view.nbytes}", self._name) from None
        except asyncssh.SFTPFailure:
            await self._size(call, key)  # perhaps it is no file
            raise

    async def _directory(self, above: str) -> tuple[Objects, Prefixes]:
        """The objects in one directory, and the prefixes below it. What vanishes meanwhile, or is no object of ours, is passed over."""
        objects: Objects = []
        below: Prefixes = []
        path = self._path(above).rstrip("/")
        with contextlib.suppress(ObjectNotFound):
            async with self._calling(above or self.url) as call:
                try:
                    async for entry in call.client.scandir(path):
                        call.moved()
                        part, mode = str(entry.filename), entry.attrs.permissions
                        if mode is None or not is_key_below(above, part):
                            continue
                        if stat.S_ISDIR(mode):
                            below.append(f"{above}{part}/")
                        elif stat.S_ISREG(mode):
                            objects.append(ObjectInfo(above + part, entry.attrs.size or 0))
                except asyncssh.SFTPFailure:
                    if await kind_of(call, path) == "directory":
                        raise
        return objects, below

    async def _clear_stale(self) -> None:
        """By the server's own clock, which a file made now shows: another host's writer is not to lose its file because a clock is off."""
        path = self._path(RESERVED)
        with contextlib.suppress(ObjectNotFound, DestinationFull):
            async with self._calling(self.url, 1) as call:
                found = {str(entry.filename): entry.attrs.mtime async for entry in call.client.scandir(path)}
                left = {name: when for name, when in found.items() if len(name) == _TEMPORARY_LENGTH and when is not None}
                if not left:
                    return
                probe = self._temporary()
                with self._tidied(call, probe):
                    async with opened_file(call, probe, "xb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                        now = (await call.step(file.stat())).mtime
                old = [name for name, when in left.items() if now is not None and now - when > STALE_AFTER]
                with self._tidied(call, *(f"{path}/{name}" for name in old)):
                    pass

    async def _check_root(self, call: Call) -> None:
        """Raises unless the root is a directory, and on the file system it was on: where a disk was unmounted there is an empty one of its name."""
        root, host = self._place.path, self._place.host
        found, system = await call.step(asyncio.gather(call.client.stat(root), call.client.statvfs(root), return_exceptions=True))
        if isinstance(found, BaseException) and not isinstance(found, MISSING):
            raise found
        if isinstance(found, BaseException) or (found.permissions is not None and not stat.S_ISDIR(found.permissions)):
            raise DestinationUnreachable(f"the directory {root} is missing on {host}, or is none; is it mounted?", self._name)
        if isinstance(system, BaseException):
            return  # not every server tells
        self._file_system = system.fsid if self._file_system is None else self._file_system
        if system.fsid != self._file_system:
            raise DestinationUnreachable(
                f"{root} on {host} is on another file system than when it was opened; was it unmounted?", self._name
            )

    async def _is_full(self, call: Call, wanted: int) -> bool:
        try:
            found = await call.step(call.client.statvfs(self._place.path))
        except asyncssh.SFTPError:
            return False
        return found.bavail * (found.frsize or found.bsize) < wanted + _ROOM or (found.files > 0 and found.favail == 0)

    def _path(self, key: str) -> str:
        return f"{self._place.path}/{key}"

    def _temporary(self) -> str:
        return self._path(f"{RESERVED}/{secrets.token_hex(_TEMPORARY_LENGTH // 2)}")
