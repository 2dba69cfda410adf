"""A module that snapferry runs: started behind its fences, shared by all destinations that use it, started again after a crash, and ended.

It knows processes and no HTTP: that something listens is all it waits for. The fences are the launcher's (``module_launcher``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pwd
import sys
import tempfile
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from snapferry.config.plugins import PluginConfig
from snapferry.destination.durable import sync_directory
from snapferry.destination.module_lines import Lines
from snapferry.errors import ConfigurationError, DestinationDenied, DestinationUnreachable
from snapferry.types import MiB

logger = logging.getLogger(__name__)

END_SECONDS = 5.0
"""So long a module may take to end by itself when it is asked to."""

_RESTARTS = 4
_PAUSE = 0.25
_STEADY = 30.0
_POLL = 0.02
_NOT_STARTED = (125, 126)
_LAUNCHER = Path(__file__).with_name("module_launcher.py")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# By loop, since processes and locks belong to one; by what was configured, since that is what they have in common.
_modules: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[PluginConfig, tuple[ModuleProcess, list[int]]]]
_modules = weakref.WeakKeyDictionary()


@asynccontextmanager
async def module_process(plugin: PluginConfig) -> AsyncIterator[ModuleProcess]:
    """The process of ``plugin``, started when it is needed first; ended when the last of those who share it has left."""
    running = _modules.setdefault(asyncio.get_running_loop(), {})
    module, users = running.setdefault(plugin, (ModuleProcess(plugin), [0]))
    users[0] += 1
    try:
        yield module
    finally:
        users[0] -= 1
        if not users[0]:
            del running[plugin]
            await module.close()


async def make_directories(name: str, plugin: PluginConfig) -> None:
    """Makes the module's own directories, durably, and gives them to its user; those that are there stay as they are.

    Raises:
        DestinationDenied: they cannot be made.
    """
    user = _user_of(plugin)

    def make() -> None:
        for path in plugin.directories:
            if os.path.isdir(path):
                continue
            _make_above(path)
            os.mkdir(path, 0o700)
            if user is not None:
                os.chown(path, *user)
            sync_directory(os.path.dirname(path))

    try:
        await asyncio.to_thread(make)
    except OSError as error:
        raise DestinationDenied(f"plugin {plugin.name}: {error.filename}: {error.strerror}", name) from error


def _make_above(path: str) -> None:
    """The directories above ``path``, which its user may pass, each name durable: all that the module keeps hangs on them."""
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        _make_above(above)
        os.mkdir(above, 0o755)
        sync_directory(os.path.dirname(above))


class ModuleProcess:
    """One module and the private directory of its socket. ``running`` starts it, and starts it again.

    Arguments:
        plugin: what to run, and within what limits.
    """

    def __init__(self, plugin: PluginConfig) -> None:
        self._plugin = plugin
        self._lock = asyncio.Lock()
        self._directory: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._lines = Lines(lambda line: logger.info("plugin %s: %s", plugin.name, line))
        self._failures = 0
        self._begun = 0.0
        self._closed = False

    @property
    def socket(self) -> str:
        """The path of its socket, the same over all restarts."""
        if self._directory is None:
            self._directory = _private_directory(_user_of(self._plugin))
        return f"{self._directory}/socket"

    @property
    def process_id(self) -> int | None:
        """Of the launcher, which is the parent of all that the module is; None where none runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def running(self, name: str) -> None:
        """Sees to it that it runs and listens; ``name`` is the destination that asks.

        Raises:
            DestinationUnreachable: it does not, after a few attempts at growing intervals; says what it last printed.
            DestinationDenied: a directory of it is not its own. ConfigurationError: there is no such user.
        """
        if self.process_id is not None and self._begun:
            return
        async with self._lock:
            if self._closed:
                raise DestinationUnreachable(f"plugin {self._plugin.name} was closed", name)
            while self.process_id is None:
                await self._restart(name)

    def why(self) -> str:
        """What is known of its end, for an error of who speaks with it; empty while it runs."""
        process = self._process
        if process is None or process.returncode is None:
            return ""
        return f"the module {_ended(process.returncode)}" + (f"; its last words: {self._lines.last}" if self._lines.last else "")

    async def ended(self, seconds: float) -> None:
        """Waits for what a broken connection makes likely, that it has ended, but not long."""
        if self._process is not None and self._reading is not None:
            await asyncio.wait([self._reading], timeout=seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._process.wait()

    async def close(self) -> None:
        """Ends it and all that it has started: asked first, killed after ``END_SECONDS``."""
        self._closed = True
        async with self._lock:
            await self._end()
            if self._directory is not None:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._directory}/socket")
                with contextlib.suppress(OSError):
                    os.rmdir(self._directory)

    async def _restart(self, name: str) -> None:
        if self._process is not None:  # it ran, and ended
            if self._begun and time.monotonic() - self._begun > _STEADY:
                self._failures = 0
            self._failures += 1
            why = self.why()
            await self._end()
            if self._failures > _RESTARTS:
                self._failures = _RESTARTS
                raise self._unreachable(f"{why}; it was started {_RESTARTS + 1} times, and is not started again for now", name, False)
            logger.warning("plugin %s: %s; it is started again", self._plugin.name, why)
            await asyncio.sleep(_PAUSE * 2 ** (self._failures - 1))
        self._begun = 0.0
        try:
            await self._start(name)
            await self._wait_until_it_listens(name)
        except BaseException:
            await self._end()
            raise
        self._begun = time.monotonic()

    async def _start(self, name: str) -> None:
        spec = self._spec(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-B", str(_LAUNCHER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, env={}, cwd="/", start_new_session=True,
        )  # fmt: skip
        self._process = process
        assert process.stdin is not None
        assert process.stderr is not None
        self._reading = asyncio.create_task(self._lines.follow(process.stderr))
        # Not in its arguments, where everybody could read them.
        process.stdin.write(json.dumps(spec).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()

    async def _wait_until_it_listens(self, name: str) -> None:
        process = self._process
        assert process is not None
        until = time.monotonic() + self._plugin.start_seconds
        while process.returncode is None:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_unix_connection(self.socket)
                writer.close()
                return
            if time.monotonic() > until:
                said = f"; its last words: {self._lines.last}" if self._lines.last else ""
                raise self._unreachable(f"nothing listens at $SNAPFERRY_SOCKET after {self._plugin.start_seconds:g} s{said}", name, True)
            await asyncio.sleep(_POLL)
        await self.ended(1.0)
        if process.returncode in _NOT_STARTED:
            raise self._unreachable(f"the module was not run: {self._lines.last or _ended(process.returncode)}", name, False)
        raise self._unreachable(self.why(), name, True)

    async def _end(self) -> None:
        """Ends what runs. The launcher does it when its input ends, which also happens where nobody is left to wait for it."""
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS + 5.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            self._process = self._reading = None

    def _spec(self, name: str) -> dict[str, object]:
        plugin = self._plugin
        user = _user_of(plugin)
        for path in plugin.directories:
            try:
                owner = os.stat(path)
            except OSError as error:
                raise self._unreachable(f"its directory {path}: {error.strerror}", name, False) from error
            if user is not None and owner.st_uid != user[0] and not owner.st_mode & 0o002:
                raise DestinationDenied(
                    f"plugin {plugin.name}: its directory {path} is not of the user that it runs as: chown -R {pwd.getpwuid(user[0]).pw_name} {path}",
                    name,
                )
        program, *arguments = plugin.command
        named = [path for path in arguments if path.startswith("/") and os.path.isfile(path)]
        limits = {
            "RLIMIT_DATA": plugin.memory,
            "RLIMIT_FSIZE": plugin.max_object + MiB,
            "RLIMIT_NOFILE": plugin.open_files,
            "RLIMIT_NPROC": plugin.processes,
            "RLIMIT_CORE": 0,
        }
        usual = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": plugin.directories[0], "TMPDIR": plugin.directories[0]}
        told = {
            "SNAPFERRY_SOCKET": self.socket,
            "SNAPFERRY_DIRECTORY": plugin.directories[0],
            "SNAPFERRY_MAX_OBJECT": str(plugin.max_object),
        }
        return {
            "command": list(plugin.command),
            "environment": usual | dict(plugin.environment) | told,
            "directory": plugin.directories[0],
            "socket_directory": self._directory,
            "memory": plugin.memory,
            "end_seconds": END_SECONDS,
            "fences": {
                "user": user[0] if user else None,
                "group": user[1] if user else None,
                "writable": [*plugin.directories, self._directory],
                "readable": [program, *named, *plugin.read_only],
                "ports": list(plugin.ports),
                "datagrams": plugin.datagrams,
                "limits": limits,
                "strict": plugin.strict,
            },
        }

    def _unreachable(self, what: str, name: str, retryable: bool) -> DestinationUnreachable:
        return DestinationUnreachable(f"plugin {self._plugin.name}: {what}", name, retryable=retryable)


def _user_of(plugin: PluginConfig) -> tuple[int, int] | None:
    """The numbers of the user and group that it is to run as; None to stay what we are."""
    if os.geteuid() != 0:
        if plugin.user is not None and plugin.user != pwd.getpwuid(os.geteuid()).pw_name:
            raise ConfigurationError(f"plugin {plugin.name}: user: only root can run it as {plugin.user!r}")
        return None
    try:
        found = pwd.getpwnam(plugin.user or "nobody")
    except KeyError:
        raise ConfigurationError(f"plugin {plugin.name}: user: there is no user {plugin.user or 'nobody'!r} here") from None
    if found.pw_uid == 0 or found.pw_gid == 0:
        raise ConfigurationError(f"plugin {plugin.name}: user: {found.pw_name!r} has the powers of root")
    return found.pw_uid, found.pw_gid


def _private_directory(user: tuple[int, int] | None) -> str:
    """A new directory that only ``user`` (and root) may enter, with a path short enough for a socket's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = ["/run"] if user is not None else [runtime] if len(runtime) < 60 and os.path.isabs(runtime) else []
    above = next((path for path in candidates if os.access(path, os.W_OK | os.X_OK)), "/tmp")  # noqa: S108 - mkdtemp is safe there
    path = tempfile.mkdtemp(prefix="snapferry-", dir=above)
    if user is not None:
        os.chown(path, *user)
    return path


def _ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
