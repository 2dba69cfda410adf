"""Bodies on their way: received into memory that is reserved, sent from a store piece by piece; the slow are not waited for forever."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import re

from aiohttp import web

from snapferry.destination.contract import Destination
from snapferry.errors import DestinationError
from snapferry.service.problems import Problem

_log = logging.getLogger("snapferry.service")

PIECE = 1 << 20
"""Bytes that are read and sent at once; two of them are held for each answer."""

SLOWEST = 16 << 10
"""Bytes a second below which, on the whole, a client holds memory for too long."""

_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):", re.ASCII)


def digest_of(header: str | None, name: str) -> bytes:
    """The SHA-256 of a ``Content-Digest`` or ``Repr-Digest`` (RFC 9530); ``Problem`` where there is none."""
    match = _SHA256.search(header or "")
    if match is None:
        raise Problem(400, f"{name} with sha-256 is needed")
    try:
        return base64.b64decode(match[1], validate=True)
    except binascii.Error:
        raise Problem(400, f"{name} is not base64") from None


def sha256(view: memoryview) -> bytes:
    """For threads: the digest of the bytes."""
    return hashlib.sha256(view).digest()


async def receive(request: web.Request, view: memoryview, stall: float, filled: list[int]) -> None:
    """Fills ``view`` from ``filled[0]`` on with the request's body, which is counted there; ``Problem`` 408 if it stops, or trickles."""
    try:
        async with asyncio.timeout(stall + view.nbytes / SLOWEST):
            while True:
                async with asyncio.timeout(stall):
                    piece = await request.content.readany()
                if not piece:
                    return
                end = filled[0] + len(piece)
                if end > view.nbytes:
                    raise Problem(413, "the body is longer than was said")
                view[filled[0] : end] = piece
                filled[0] = end
    except TimeoutError:
        raise Problem(
            408, f"the body came too slowly: nothing for {stall:g} s, or too little on the whole", {"Connection": "close"}
        ) from None


async def send(request: web.Request, answer: web.StreamResponse, store: Destination, key: str, begin: int, end: int, stall: float) -> None:
    """Sends the bytes of an object from ``begin`` up to ``end``: one piece is read while the one before it is sent."""
    await answer.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client went away")
    encrypted = transport.get_extra_info("sslcontext") is not None
    if not encrypted:
        # So that a piece's memory is the transport's until it is drained, and no longer. With uvloop's TLS such a limit ends in a standstill.
        transport.set_write_buffer_limits(0)
    spaces = [bytearray(min(PIECE, end - begin)) for _ in range(2)]

    def read(number: int) -> asyncio.Task[memoryview]:
        at = begin + number * PIECE
        view = memoryview(spaces[number % 2])[: max(0, min(PIECE, end - at))]
        return asyncio.create_task(_read(store, key, at, view))

    reading = read(0)
    try:
        for number in range((end - begin + PIECE - 1) // PIECE):
            view = await reading
            if begin + (number + 1) * PIECE < end:
                reading = read(number + 1)
            async with asyncio.timeout(stall):
                # A whole piece is more than the writer takes without draining, so that its space is free again afterwards.
                await answer.write(bytes(view) if encrypted else view)
        async with asyncio.timeout(stall):
            await answer.write_eof()
    except (DestinationError, TimeoutError) as error:
        # The head is out: that the body is not whole must show in the connection's end.
        _log.warning("%s %s: broken off: %s", request.method, request.path, str(error) or f"the client took nothing for {stall:g} s")
        transport.abort()
        raise ConnectionResetError from error
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(store: Destination, key: str, at: int, view: memoryview) -> memoryview:
    await store.read_into(key, at, view)
    return view
