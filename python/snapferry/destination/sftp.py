"""Objects as files below a directory of a host that speaks SFTP.

A key is the file's path below the root; ``tmp/`` below it holds what is being written. An object is written there, synced where the server can, and
given its name by a hard link, which fails where the name is taken; where the server makes no links, by the protocol's own rename, which must not
replace anything. Which of these the server keeps to is tried out whenever the place is opened for writing, and ``capabilities`` say it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import stat
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncssh
from typing_extensions import Buffer

from snapferry.config.sftp_place import SftpPlace
from snapferry.destination.contract import Capabilities, ObjectInfo
from snapferry.destination.keys import RESERVED, check_key, check_prefix, is_key_below
from snapferry.destination.sftp_client import Connection, check_options
from snapferry.errors import DestinationDenied, DestinationError, DestinationFull, DestinationUnreachable, ObjectDamaged, ObjectNotFound

STALE_AFTER = 24 * 3600.0
"""Seconds after which a temporary file has no writer any more."""

_CONCURRENCY = 4
_PIECE = 4 << 20
_AT_ONCE = 2
_DIRECTORIES_AT_ONCE = 16
_TIDY_SECONDS = 5.0

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
        self._exclusive = True
        self._links = True
        self._syncs = True
        self._directories: set[str] = set()

    @classmethod
    async def open(cls, name: str, place: SftpPlace, *, writable: bool) -> SftpDestination:
        """Connects and looks for the directory; for writing, tries out what the server can, and clears away what killed writers left.

        Raises:
            DestinationUnreachable: no answer, or no such directory. DestinationDenied: a key is not accepted, ours or the host's.
        """
        check_options(place, f"destination {name}")
        destination = cls(name, place)
        try:
            await destination._look()
            if writable:
                await destination._prove()
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
            async with connection.calling(place.url) as client:
                if not await client.isdir(place.path):
                    await client.mkdir(place.path, asyncssh.SFTPAttrs(permissions=0o700))
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
        """As exclusive as was found out; durable where the server syncs files on demand."""
        return Capabilities(self._exclusive, consistent_list=True, concurrency=_CONCURRENCY, durable=self._syncs)

    async def create(self, key: str, data: Buffer) -> bool:
        """Stores ``data`` under ``key`` unless it is taken."""
        check_key(key)
        with memoryview(data).cast("B") as view:
            return await self._create(key, self._path(key), view)

    async def read(self, key: str, limit: int) -> bytes:
        """The whole object; ``ObjectDamaged`` if it is longer than ``limit`` bytes."""
        check_key(key)
        async with self._connection.calling(key, limit) as client:
            size = await self._size(client, key)
            if size > limit:
                raise ObjectDamaged(f"{key} is {size} bytes long, more than the {limit} it may have", self._name)
            data = bytearray(size)
            await self._fill(client, key, 0, memoryview(data))
            return bytes(data)

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fills ``buffer`` from ``offset`` on."""
        check_key(key)
        if offset < 0:
            raise ValueError(f"an offset of {offset} bytes")
        with buffer.cast("B") as view:
            async with self._connection.calling(key, view.nbytes) as client:
                if not view.nbytes:
                    await self._size(client, key)
                await self._fill(client, key, offset, view)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """The last ``length`` bytes and the size."""
        check_key(key)
        async with self._connection.calling(key, length) as client:
            size = await self._size(client, key)
            data = bytearray(min(length, size))
            await self._fill(client, key, size - len(data), memoryview(data))
            return bytes(data), size

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object below ``prefix``; a few directories are read side by side."""
        check_prefix(prefix)
        pending = [prefix]
        while pending:
            now, pending = pending[:_DIRECTORIES_AT_ONCE], pending[_DIRECTORIES_AT_ONCE:]
            for objects, below in await asyncio.gather(*(self._directory(above) for above in now)):
                pending += below
                for info in objects:
                    yield info

    async def delete(self, key: str) -> None:
        """Removes the object; one that is not there is no error."""
        check_key(key)
        with contextlib.suppress(ObjectNotFound):
            async with self._connection.calling(key) as client:
                try:
                    await client.remove(self._path(key))
                except asyncssh.SFTPFailure as error:
                    if await self._kind(client, self._path(key)) == "file":
                        raise
                    raise ObjectNotFound(f"{key}: there is no such object", self._name) from error

    async def close(self) -> None:
        """Ends the connection."""
        await self._connection.close()

    def _path(self, key: str) -> str:
        return f"{self._place.path}/{key}"

    async def _look(self) -> None:
        async with self._connection.calling(self.url) as client:
            if not await client.isdir(self._place.path):
                raise DestinationUnreachable(
                    f"the directory {self._place.path} is missing on {self._place.host}, or is none; is it mounted?", self._name
                )

    async def _create(self, key: str, path: str, view: memoryview) -> bool:
        temporary = self._path(f"{RESERVED}/{secrets.token_hex(16)}")
        written = False
        try:
            async with self._connection.calling(key, view.nbytes) as client:
                await self._make_directory(client, RESERVED)
                written = True
                await self._write(client, key, temporary, view)
                await self._make_directory(client, key.rpartition("/")[0])
                created = await self._name_it(client, temporary, path)
                written = not created or self._links
                return created
        finally:
            if written:
                await self._remove_quietly(temporary)

    async def _write(self, client: asyncssh.SFTPClient, key: str, path: str, view: memoryview) -> None:
        try:
            async with client.open(path, "xb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                for at in range(0, view.nbytes, _PIECE):
                    await file.write(bytes(view[at : at + _PIECE]), at)
                if self._syncs:
                    try:
                        await file.fsync()
                    except asyncssh.SFTPOpUnsupported:
                        self._syncs = False
        except asyncssh.SFTPNoSuchFile as error:
            self._directories.clear()
            raise DestinationUnreachable(
                f"{key}: the directory {self._place.path} is no longer there; is it mounted?", self._name
            ) from error
        except asyncssh.SFTPFailure as error:
            # The third version of the protocol has one word for everything.
            if await self._is_full(client, view.nbytes):
                raise DestinationFull(f"{key}: no space left on {self._place.host}", self._name) from error
            raise

    async def _name_it(self, client: asyncssh.SFTPClient, temporary: str, path: str) -> bool:
        try:
            if self._links:
                await client.link(temporary, path)
            else:
                await client.rename(temporary, path)
        except asyncssh.SFTPOpUnsupported:
            if not self._links:
                raise
            self._links = False
            return await self._name_it(client, temporary, path)
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if await self._kind(client, path) is None:
                raise
            return False
        return True

    async def _make_directory(self, client: asyncssh.SFTPClient, directory: str) -> None:
        if directory in self._directories or not directory:
            return
        await self._make_directory(client, directory.rpartition("/")[0])
        path = self._path(directory)
        try:
            await client.mkdir(path, asyncssh.SFTPAttrs(permissions=0o700))
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if await self._kind(client, path) != "directory":
                raise
        except asyncssh.SFTPNoSuchFile as error:
            raise DestinationUnreachable(f"the directory {self._place.path} is no longer there; is it mounted?", self._name) from error
        self._directories.add(directory)

    async def _remove_quietly(self, path: str) -> None:
        """What is left goes with the next opening."""
        with contextlib.suppress(DestinationError, asyncssh.Error, OSError, TimeoutError):
            async with asyncio.timeout(_TIDY_SECONDS), self._connection.calling(path) as client:
                await client.remove(path)

    async def _size(self, client: asyncssh.SFTPClient, key: str) -> int:
        try:
            found = await client.stat(self._path(key))
        except asyncssh.SFTPFailure as error:
            # A file where a directory should be: some servers say no more than that it failed.
            raise ObjectNotFound(f"{key}: there is no such object", self._name) from error
        if found.permissions is not None and not stat.S_ISREG(found.permissions):
            raise ObjectNotFound(f"{key}: there is no such object", self._name)
        return found.size or 0

    async def _fill(self, client: asyncssh.SFTPClient, key: str, offset: int, view: memoryview) -> None:
        if not view.nbytes:
            return
        try:
            async with client.open(self._path(key), "rb") as file:
                await self._fill_from(file, key, offset, view)
        except asyncssh.SFTPFailure:
            # The third version of the protocol has one word for everything: perhaps it is no file.
            await self._size(client, key)
            raise

    async def _fill_from(self, file: asyncssh.SFTPClientFile, key: str, offset: int, view: memoryview) -> None:
        pieces = iter(range(0, view.nbytes, _PIECE))

        async def read() -> None:
            for at in pieces:
                want = min(_PIECE, view.nbytes - at)
                data = cast(bytes, await file.read(want, offset + at))
                if len(data) != want:
                    raise ObjectDamaged(f"{key} ends before byte {offset + view.nbytes}", self._name)
                view[at : at + want] = data

        readers = [asyncio.ensure_future(read()) for _ in range(min(_AT_ONCE, -(-view.nbytes // _PIECE)))]
        try:
            await asyncio.gather(*readers)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _directory(self, above: str) -> tuple[Objects, Prefixes]:
        """The objects in one directory, and the prefixes below it. What vanishes meanwhile, or is no object of ours, is passed over."""
        objects: Objects = []
        below: Prefixes = []
        try:
            async with self._connection.calling(above or self.url) as client:
                for entry in await client.readdir(self._path(above).rstrip("/")):
                    part, attrs = _text(entry.filename), entry.attrs
                    if not is_key_below(above, part):
                        continue
                    if attrs.permissions is not None and stat.S_ISDIR(attrs.permissions):
                        below.append(f"{above}{part}/")
                    elif attrs.permissions is not None and stat.S_ISREG(attrs.permissions):
                        objects.append(ObjectInfo(above + part, attrs.size or 0))
        except ObjectNotFound:
            if not above:
                raise DestinationUnreachable(f"the directory {self._place.path} is no longer there; is it mounted?", self._name) from None
        except DestinationError as error:
            if error.retryable or isinstance(error, DestinationDenied) or await self._is_directory(above):
                raise
        return objects, below

    async def _is_directory(self, above: str) -> bool:
        async with self._connection.calling(above) as client:
            return await self._kind(client, self._path(above).rstrip("/")) == "directory"

    async def _kind(self, client: asyncssh.SFTPClient, path: str) -> str | None:
        try:
            found = await client.lstat(path)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPFailure):
            return None
        return "directory" if found.permissions is not None and stat.S_ISDIR(found.permissions) else "file"

    async def _is_full(self, client: asyncssh.SFTPClient, wanted: int) -> bool:
        try:
            found = await client.statvfs(self._place.path)
        except asyncssh.SFTPError:
            return False
        return bool(found.bavail * (found.frsize or found.bsize) < wanted + (1 << 16))

    async def _prove(self) -> None:
        """Whether the server refuses to give a name that is taken."""
        first, second, taken = (self._path(f"{RESERVED}/{secrets.token_hex(16)}") for _ in range(3))
        try:
            async with self._connection.calling(self.url) as client:
                await self._make_directory(client, RESERVED)
                for path in (first, second):
                    await self._write(client, "what may be written", path, memoryview(path.encode()))
                once = await self._name_it(client, first, taken)
                twice = await self._name_it(client, second, taken)
                self._exclusive = once and not twice
        finally:
            for path in (first, second, taken):
                await self._remove_quietly(path)

    async def _clear_stale(self) -> None:
        async with self._connection.calling(self.url) as client:
            for entry in await client.readdir(self._path(RESERVED)):
                name, attrs = _text(entry.filename), entry.attrs
                if len(name) == 32 and attrs.mtime is not None and time.time() - attrs.mtime > STALE_AFTER:
                    await self._remove_quietly(self._path(f"{RESERVED}/{name}"))


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
