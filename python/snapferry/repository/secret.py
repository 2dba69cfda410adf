"""What opens a key slot: a key file's bytes, or a passphrase, out of a file or a command. Neither is ever an argument or a variable."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import FileIO

from snapferry.errors import AccessDenied, ConfigurationError
from snapferry.repository.keyfile import warn_if_loose

COMMAND_SECONDS = 60.0
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A passphrase's bytes, which are UTF-8."""

    data: bytes = field(repr=False)


Secret = bytes | Passphrase
"""A key file's 32 bytes, or a passphrase."""


def read_passphrase_file(path: str | os.PathLike[str]) -> Passphrase:
    """The passphrase in a file, without one line's end; warns as ``read_key_file`` does.

    Raises:
        AccessDenied: the file is missing or unreadable, or the passphrase is empty, too long, or not UTF-8.
    """
    name = os.fspath(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            data = os.read(fd, _LONGEST + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise AccessDenied(f"cannot read passphrase file {name}: {error.strerror}") from error
    passphrase = _checked(data, f"passphrase file {name}")
    warn_if_loose(mode, f"passphrase file {name}")
    return passphrase


async def run_passphrase_command(command: str, seconds: float = COMMAND_SECONDS) -> Passphrase:
    """The passphrase that a command prints, without one line's end. The command is run without a shell, its standard input closed.

    Raises:
        ConfigurationError: it is no command. AccessDenied: it cannot be run, fails, takes longer than ``seconds``, or prints no passphrase.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"repository.passphrase_command cannot be understood: {error}") from error
    if not words:
        raise ConfigurationError("repository.passphrase_command is empty")
    where = f"passphrase_command ({words[0]})"
    async with _output(words, where) as (process, stream):
        try:
            async with asyncio.timeout(seconds):
                # One byte too many is enough to know; a command that goes on printing is ended.
                data = await _up_to(stream, _LONGEST + 1)
                if len(data) <= _LONGEST:
                    await process.wait()
        except TimeoutError:
            raise AccessDenied(f"{where} has not ended after {seconds:g} s, and was stopped") from None
    if len(data) <= _LONGEST and process.returncode:
        raise AccessDenied(f"{where} failed with exit code {process.returncode}")
    return _checked(data, f"the output of {where}")


@asynccontextmanager
async def _output(words: list[str], where: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """The command, running, and what it prints. At the end it is ended, with all that it has started in its process group.

    The pipe is our own: asyncio waits for its own pipes to be read to their end before it tells that a process is gone.
    """
    read_end, write_end = os.pipe()
    stream = asyncio.StreamReader()
    with FileIO(read_end) as source, FileIO(write_end, "w") as sink:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), source)
        try:
            process = await _start(words, sink, where)
            sink.close()
            try:
                yield process, stream
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
        finally:
            transport.close()


async def _start(words: list[str], stdout: FileIO, where: str) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL, stdout=stdout, start_new_session=True)
    except (OSError, ValueError) as error:
        raise AccessDenied(f"{where} cannot be run: {getattr(error, 'strerror', None) or error}") from error


async def _up_to(stream: asyncio.StreamReader, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := await stream.read(count - len(data))):
        data += more
    return data


def _checked(data: bytes, where: str) -> Passphrase:
    if len(data) > _LONGEST:
        raise AccessDenied(f"{where}: a passphrase has at most {_LONGEST} bytes")
    data = data.removesuffix(b"\r\n") if data.endswith(b"\r\n") else data.removesuffix(b"\n")
    if not data:
        raise AccessDenied(f"{where}: the passphrase is empty")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise AccessDenied(f"{where}: the passphrase is not UTF-8 (byte {error.start})") from error
    return Passphrase(data)
