"""Bytes to and from a file of an SFTP server: several requests in flight, from and into where they lie. Knows no objects and no names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import cast

import asyncssh

from snapferry.destination.sftp_client import Call

_IN_FLIGHT = 4 << 20
"""So many bytes are asked for, or sent, before the first answer must have come: at 100 ms to the host that is 40 MiB/s for each call."""

_MOST_REQUESTS = 64
_SMALLEST_LIMIT = 16 << 10

File = asyncssh.SFTPClientFile


class Ended(Exception):
    """The file ends before what was asked for."""


@asynccontextmanager
async def opened_file(call: Call, path: str, mode: str, attrs: asyncssh.SFTPAttrs | None = None) -> AsyncIterator[File]:
    """The file, closed at the end. Where the block fails or is cancelled, it is closed when the call is over: nobody waits for a server that hangs."""
    opening = asyncio.ensure_future(call.client.open(path, mode, attrs or asyncssh.SFTPAttrs(), block_size=0))

    async def close() -> None:
        await (await opening).close()

    try:
        # Shielded: an answer that nobody took would leave the file open there.
        file = await call.step(asyncio.shield(opening))
        yield file
    except BaseException:
        call.afterwards.append(close)
        raise
    await call.step(file.close())


async def write_all(call: Call, file: File, view: memoryview) -> None:
    """Writes ``view`` from the file's beginning on. It is not looked at any more when this has ended, however it ends."""
    block = call.client.limits.max_write_len or _SMALLEST_LIMIT

    async def one(at: int) -> None:
        with view[at : at + block] as piece:
            # The library copies it into its packet before it waits for anything.
            await call.step(file.write(cast(bytes, piece), at))

    await _side_by_side(range(0, view.nbytes, block), block, one)


async def read_all(call: Call, file: File, offset: int, view: memoryview) -> None:
    """Fills ``view`` from ``offset`` on. It is not written to any more when this has ended, however it ends.

    Raises:
        Ended: the file is shorter. SFTPBadMessage: the server sent more than it was asked for.
    """
    block = call.client.limits.max_read_len or _SMALLEST_LIMIT

    async def one(at: int) -> None:
        end = min(at + block, view.nbytes)
        while at < end:
            data = cast(bytes, await call.step(file.read(end - at, offset + at)))
            if not data:
                raise Ended
            if len(data) > end - at:
                raise asyncssh.SFTPBadMessage("it sent more than it was asked for")
            view[at : at + len(data)] = data
            at += len(data)

    await _side_by_side(range(0, view.nbytes, block), block, one)


async def _side_by_side(offsets: Iterable[int], block: int, one: Callable[[int], Awaitable[None]]) -> None:
    """``one`` for every offset, as many at once as is worth it. When it has ended, none of them runs any more."""
    rest = iter(offsets)

    async def work() -> None:
        for at in rest:
            await one(at)

    workers = [asyncio.ensure_future(work()) for _ in range(max(2, min(_MOST_REQUESTS, _IN_FLIGHT // block)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        # None of them touches the bytes again: it is cancelled where it waits for its answer.
        await asyncio.wait(workers)
