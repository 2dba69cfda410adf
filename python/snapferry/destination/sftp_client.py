"""The connection to an SSH server: made when it is needed, made again when it was lost, and its errors in our words. Knows no objects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncssh

from snapferry.config.sftp_place import SftpPlace
from snapferry.errors import (
    ConfigurationError,
    DestinationDenied,
    DestinationError,
    DestinationFull,
    DestinationUnreachable,
    ObjectNotFound,
)

_CONNECT_SECONDS = 30.0
_KEEPALIVE_SECONDS, _KEEPALIVES_MISSED = 15, 3

# It tells every connection and channel, and what it tells goes to whoever logs here.
logging.getLogger("asyncssh").setLevel(logging.ERROR)


class Connection:
    """One connection, for any number of calls side by side."""

    def __init__(self, name: str, place: SftpPlace) -> None:
        self._name = name
        self._place = place
        self._connecting = asyncio.Lock()
        self._opened: tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient] | None = None

    async def client(self) -> asyncssh.SFTPClient:
        """Of the connection that there is, or of a new one.

        Raises:
            DestinationUnreachable: nobody answers, or the host is not the one that it was, or is not known. DestinationDenied: it does not let us in.
        """
        async with self._connecting:
            if self._opened is not None and self._opened[0].is_closed():
                await self._drop()
            if self._opened is None:
                self._opened = await self._connect()
            return self._opened[1]

    async def close(self) -> None:
        """Ends the connection."""
        async with self._connecting:
            await self._drop()

    @asynccontextmanager
    async def calling(self, what: str, size: int = 0) -> AsyncIterator[asyncssh.SFTPClient]:
        """The client for a call, whose errors are translated; it may take the place's ``stall_timeout`` and what ``size`` bytes take at 64 KiB/s."""
        client = await self.client()
        scope = asyncio.timeout(self._place.stall_timeout + size / (64 << 10))
        try:
            async with scope:
                yield client
        except (asyncssh.Error, OSError, EOFError) as error:
            if isinstance(error, TimeoutError) and scope.expired():
                # Whatever it answers now is no answer to anything.
                await self._abort()
                raise DestinationUnreachable(f"{what}: no answer within {self._place.stall_timeout:.0f} s", self._name) from error
            raise self.translated(error, what) from error

    def translated(self, error: Exception, what: str) -> DestinationError:
        """Our error for one of the library's."""
        text = f"{what}: {_reason(error)}"
        if isinstance(error, (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)):
            return ObjectNotFound(text, self._name)
        if isinstance(error, (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect)):
            return DestinationDenied(text, self._name)
        if isinstance(error, (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)):
            return DestinationFull(text, self._name)
        if isinstance(error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)) or not isinstance(error, asyncssh.SFTPError):
            return DestinationUnreachable(f"{text}; the connection to {self._place.host} was lost", self._name)
        return DestinationError(text, self._name)

    async def _connect(self) -> tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]:
        place = self._place
        options: dict[str, object] = {
            "keepalive_interval": _KEEPALIVE_SECONDS,
            "keepalive_count_max": _KEEPALIVES_MISSED,
            "connect_timeout": min(_CONNECT_SECONDS, place.stall_timeout),
            "login_timeout": min(_CONNECT_SECONDS, place.stall_timeout),
            # Nobody is there to be asked.
            "preferred_auth": "publickey",
            "compression_algs": None,
        }
        if place.user is not None:
            options["username"] = place.user
        if place.identity_file is not None:
            options["client_keys"] = [place.identity_file]
            options["agent_path"] = None
        if place.known_hosts is not None:
            options["known_hosts"] = place.known_hosts
        config = os.path.expanduser("~/.ssh/config")
        if os.path.isfile(config):
            options["config"] = [config]
        try:
            connection = await asyncssh.connect(place.host, *([place.port] if place.port is not None else []), **options)
        except (asyncssh.Error, OSError, ValueError) as error:
            raise self._refused(error) from error
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return connection, await connection.start_sftp_client()
        except (asyncssh.Error, OSError) as error:
            connection.abort()
            raise DestinationUnreachable(
                f"{place.host} offers no SFTP: {_reason(error) or 'no answer'}; is the subsystem enabled there?", self._name
            ) from error
        except BaseException:
            connection.abort()
            raise

    def _refused(self, error: Exception) -> DestinationError:
        place = self._place
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            file = place.known_hosts or "~/.ssh/known_hosts"
            port = "" if place.port in (None, 22) else f"-p {place.port} "
            return DestinationDenied(
                f"the key of the host {place.host} is not in {file}, or is not the one that stands there, so nothing was sent ({_reason(error)}); if you expect this,"
                f" compare the fingerprint of `ssh-keyscan {port}{place.host}` with the host's own and add the line to {file}",
                self._name,
            )
        if isinstance(error, asyncssh.PermissionDenied):
            shown = place.identity_file or "none of the agent's keys and of those in ~/.ssh"
            return DestinationDenied(
                f"{place.host} does not let {place.user or 'us'} in: it takes {shown if place.identity_file is None else f'{shown} not'}; "
                "put the public key into authorized_keys there",
                self._name,
            )
        if isinstance(error, (asyncssh.KeyEncryptionError, asyncssh.KeyImportError)):
            return DestinationDenied(
                f"the key {place.identity_file or 'in ~/.ssh'} cannot be used: {_reason(error)}; a key with a passphrase is used through ssh-agent",
                self._name,
            )
        if isinstance(error, FileNotFoundError) or (isinstance(error, ValueError) and not isinstance(error, asyncssh.Error)):
            return DestinationDenied(f"{getattr(error, 'filename', None) or 'a key'}: {_reason(error)}", self._name)
        return DestinationUnreachable(f"{place.host} cannot be reached: {_reason(error)}", self._name)

    async def _drop(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[0].close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2.0):
                    await opened[0].wait_closed()

    async def _abort(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[0].abort()


def check_options(place: SftpPlace, where: str) -> None:
    """``ConfigurationError`` for files that are named and not there."""
    for key in ("identity_file", "known_hosts"):
        path = getattr(place, key)
        if path is not None and not os.path.isfile(path):
            raise ConfigurationError(f"{where}: {key}: there is no file {path}")


def _reason(error: Exception) -> str:
    """What the server says, in one bounded line."""
    text = getattr(error, "reason", "") or str(error) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)[:300]).split())
