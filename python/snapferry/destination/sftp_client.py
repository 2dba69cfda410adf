"""The connection to an SSH server: made when it is needed, made again when it was lost, every wait for it bounded. Knows no objects."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import asyncssh

from snapferry.config.sftp_place import SftpPlace
from snapferry.destination.deadline import Deadline, Stalled, deadline
from snapferry.destination.sftp_errors import FAILURES, is_lost, locked, reason, refused, translated
from snapferry.errors import ConfigurationError, DestinationUnreachable

_CONNECT_SECONDS = 30.0
_TIDY_SECONDS = 5.0
_KEEPALIVE_SECONDS, _KEEPALIVES_MISSED = 15, 3
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")

_Result = TypeVar("_Result")
Work = Callable[[], Awaitable[object]]

# It tells every connection and channel, and what it tells goes to whoever logs here.
logging.getLogger("asyncssh").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class _Opened:
    connection: asyncssh.SSHClientConnection
    client: asyncssh.SFTPClient


@dataclass(slots=True)
class Call:
    """One call under way. Whoever gets an answer says so with ``moved``: what is bounded is the time in which none comes.

    Attributes:
        afterwards: what is to be tidied up on the same connection, one after another, when the call is over. It is waited for unless the call was
            cancelled or the connection is lost, and nobody learns how it went.
    """

    client: asyncssh.SFTPClient
    moving: Deadline
    stall: float
    afterwards: list[Work] = field(default_factory=list)

    def moved(self) -> None:
        """Something came: from now on the next has its time."""
        self.moving.expect(f"no answer for {self.stall:g} s (stall_timeout)", self.stall)

    async def step(self, asked: Awaitable[_Result]) -> _Result:
        """The answer to one request of several."""
        answer = await asked
        self.moved()
        return answer


class Connection:
    """One connection, for any number of calls side by side."""

    def __init__(self, name: str, place: SftpPlace) -> None:
        self._name = name
        self._place = place
        self._opened: _Opened | None = None
        self._attempt: asyncio.Task[_Opened] | None = None
        self._tidying: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def calling(self, what: str) -> AsyncIterator[Call]:
        """A call, whose errors are translated. One that stalls, or loses the connection, takes the connection with it: the next makes a new one."""
        opened = await self._ready()
        afterwards: list[Work] = []
        in_peace = True
        try:
            async with deadline() as moving:
                call = Call(opened.client, moving, self._place.stall_timeout, afterwards)
                call.moved()
                yield call
        except Stalled as error:
            # Whatever it answers now is no answer to anything.
            in_peace = False
            self._abandon(opened)
            raise DestinationUnreachable(f"{what}: {self._place.host}: {error}", self._name) from error
        except FAILURES as error:
            if is_lost(error):
                in_peace = False
                self._abandon(opened)
            raise translated(error, self._place, self._name, what) from error
        except asyncio.CancelledError:
            in_peace = False
            raise
        finally:
            if afterwards:
                tidying = self._tidy(opened, afterwards)
                if in_peace:
                    await asyncio.shield(tidying)

    async def close(self) -> None:
        """Ends what is being tidied up, and the connection."""
        if self._tidying:
            await asyncio.wait(self._tidying)
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.connection.close()
            try:
                async with asyncio.timeout(_TIDY_SECONDS):
                    await opened.connection.wait_closed()
            except FAILURES:
                opened.connection.abort()

    async def _ready(self) -> _Opened:
        """The connection that there is, or a new one, which all who wait for one share: so nobody waits for longer than one attempt takes."""
        if self._opened is not None and not self._opened.connection.is_closed():
            return self._opened
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect())
            self._attempt.add_done_callback(self._connected)
        return await asyncio.shield(self._attempt)

    def _connected(self, attempt: asyncio.Task[_Opened]) -> None:
        self._attempt = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._opened = attempt.result()

    def _abandon(self, opened: _Opened) -> None:
        """Drops this connection, and no newer one."""
        if self._opened is opened:
            self._opened = None
        opened.connection.abort()

    def _tidy(self, opened: _Opened, afterwards: list[Work]) -> asyncio.Task[None]:
        async def tidy() -> None:
            for work in afterwards:
                try:
                    async with asyncio.timeout(_TIDY_SECONDS):
                        await work()
                except TimeoutError:
                    self._abandon(opened)
                    return
                except FAILURES:
                    continue

        task = asyncio.create_task(tidy())
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        return task

    async def _connect(self) -> _Opened:
        seconds = min(_CONNECT_SECONDS, self._place.stall_timeout)
        try:
            async with asyncio.timeout(seconds):
                connection = await asyncssh.connect(**self._options())
        except TimeoutError as error:
            raise DestinationUnreachable(f"{self._place.host} cannot be reached: no answer within {seconds:g} s", self._name) from error
        except (*FAILURES, ValueError) as error:
            raise refused(error, self._place, self._name) from error
        try:
            async with asyncio.timeout(seconds):
                # Names that are not ours may be of any bytes.
                return _Opened(connection, await connection.start_sftp_client(path_errors="surrogateescape"))
        except FAILURES as error:
            connection.abort()
            raise DestinationUnreachable(
                f"{self._place.host} offers no SFTP: {reason(error) or 'no answer'}; is the subsystem enabled there?", self._name
            ) from error
        except BaseException:
            connection.abort()
            raise

    def _options(self) -> dict[str, object]:
        place = self._place
        options: dict[str, object] = {
            "host": place.host,
            "keepalive_interval": _KEEPALIVE_SECONDS,
            "keepalive_count_max": _KEEPALIVES_MISSED,
            # Nobody is there to be asked.
            "preferred_auth": "publickey",
            "compression_algs": None,
        }
        if place.user is not None:
            options["username"] = place.user
        if place.port is not None:
            options["port"] = place.port
        config = os.path.expanduser("~/.ssh/config")
        if os.path.isfile(config):
            options["config"] = [config]
        known = self._known_hosts(options)
        return {**options, "known_hosts": known, **self._identity()}

    def _identity(self) -> dict[str, object]:
        """The key that is named and no other; through the agent where it has a passphrase."""
        file = self._place.identity_file
        if file is None:
            return {}
        try:
            asyncssh.read_private_key(file)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            if not os.path.isfile(f"{file}.pub"):
                raise locked(reason(error), self._place, self._name) from error
            return {"client_keys": [file], "ignore_encrypted": True, "agent_identities": [f"{file}.pub"]}
        return {"client_keys": [file], "agent_path": None}

    def _known_hosts(self, options: dict[str, object]) -> object:
        """Never None, which would be to take any host for the right one, as the library does for ``UserKnownHostsFile none``."""
        place = self._place
        if place.host_key is not None:
            return ([asyncssh.import_public_key(place.host_key)], [], [])
        if place.known_hosts is not None:
            return place.known_hosts
        named = asyncssh.SSHClientConnectionOptions(**options, client_keys=None, agent_path=None).known_hosts
        files = [os.path.expanduser(str(file)) for file in (_KNOWN_HOSTS if named == [] else named or ())]  # type: ignore[union-attr]
        return [file for file in files if os.path.isfile(file) and os.access(file, os.R_OK)] or b""


def check_options(place: SftpPlace, where: str) -> None:
    """``ConfigurationError`` for files that are named and not there, and a host key that is none."""
    for key in ("identity_file", "known_hosts"):
        path = getattr(place, key)
        if path is not None and not os.path.isfile(path):
            raise ConfigurationError(f"{where}: {key}: there is no file {path}")
    if place.host_key is not None:
        try:
            asyncssh.import_public_key(place.host_key)
        except (asyncssh.KeyImportError, ValueError) as error:
            raise ConfigurationError(
                f"{where}: host_key: this is no public key ({reason(error)}); it reads like 'ssh-ed25519 AAAA…', as `ssh-keyscan` prints it"
            ) from error
