"""A request's body that goes out as it lies in memory, with HTTP clients that are made of aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

_SLICE = 256 << 10


class Body(Payload):
    """An object's bytes on their way out: written in slices from where they lie, never copied here.

    Arguments:
        view: the bytes.
        moved: called before each slice, and at last with True.
    """

    def __init__(self, view: memoryview, moved: Callable[[bool], object]) -> None:
        super().__init__(view, content_type="application/octet-stream")
        self._size = view.nbytes
        self._view = view
        self._moved = moved
        self._transport: asyncio.WriteTransport | None = None

    def __len__(self) -> int:
        return self._view.nbytes

    def __bool__(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The SDK of S3 takes only what has this for a body; it must not use it, since the payload is not signed."""
        raise NotImplementedError

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """It is no text."""
        raise NotImplementedError

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Writes all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Writes all of it, as fast as the connection takes it."""
        del content_length
        # The writer forgets it when the connection is closed.
        self._transport = writer.transport
        for begin in range(0, self._view.nbytes, _SLICE):
            self._moved(False)
            await writer.write(self._view[begin : begin + _SLICE])
        self._moved(True)

    def abort(self) -> None:
        """Drops the connection with all that it has not sent: closing it would still send from memory that its owner may have taken back."""
        if self._transport is not None:
            self._transport.abort()
