"""Tries out a store by what is asked of it: creates, reads, lists and deletes objects of no repository, and times them.

They lie below ``probe/``, which no listing of a repository looks at. A trial that was killed leaves them; a later one clears them away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from snapferry.destination.contract import Destination, is_there, list_keys
from snapferry.errors import DestinationDenied, DestinationError, ObjectDamaged

PREFIX = "probe/"
SIZE = 32 << 20
"""Bytes of the large object: as a pack."""

_SMALL = 4096
_STALE_SECONDS = 3600
_NAME = re.compile(rf"{PREFIX}([0-9]{{10,12}})-[0-9a-f]{{32}}")
_TIDY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes:
        what: in a few words. holds: whether it is so. detail: figures, or what it means.
        needed: it is promised, by the contract or by what the store declares of itself; where it is not so nothing there is safe.
    """

    what: str
    holds: bool
    detail: str
    needed: bool = True


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found. ``first_byte`` in seconds; ``create_rate`` and ``read_rate`` in bytes a second, of one object at a time."""

    checks: tuple[Check, ...]
    first_byte: float
    create_rate: float
    read_rate: float

    @property
    def exit_code(self) -> int:
        """0, or 1 where something does not hold that must."""
        return 1 if any(check.needed and not check.holds for check in self.checks) else 0


async def prove(destination: Destination, *, size: int = SIZE, clock: Callable[[], float] = time.monotonic) -> Proof:
    """Tries everything once; ``destination`` must be open for writing.

    Raises:
        ObjectDamaged: what is read is not what was stored. Other ``DestinationError``: as the store raises it.
    """
    await _clear_away(destination)
    begun = int(time.time())
    small, large = (f"{PREFIX}{begun:010d}-{secrets.token_hex(16)}" for _ in range(2))
    made = [small, large]
    try:
        checks, first_byte = await _small(destination, small, clock)
        more, create_rate, read_rate = await _large(destination, large, os.urandom(size), clock)
        checks += more
        durable = destination.capabilities.durable
        said = (
            "it says that what it acknowledges survives a power loss, which no trial can show"
            if durable
            else "the store cannot be told to sync what it acknowledges"
        )
        checks.append(Check("durable", durable, said, needed=False))
        checks.append(await _delete(destination, made))
        return Proof(tuple(checks), first_byte, create_rate, read_rate)
    finally:
        with contextlib.suppress(DestinationError, TimeoutError):
            async with asyncio.timeout(_TIDY_SECONDS):
                for key in made:
                    await destination.delete(key)


async def _small(destination: Destination, key: str, clock: Callable[[], float]) -> tuple[list[Check], float]:
    declared, data = destination.capabilities, os.urandom(_SMALL)
    begun = clock()
    await destination.create(key, data)
    created = clock() - begun
    checks = [Check("create", True, f"{len(data)} bytes in {created * 1000:.0f} ms")]
    refused = not await destination.create(key, bytes(_SMALL))
    begun = clock()
    if await destination.read(key, 2 * _SMALL) != data and (refused or declared.exclusive_create):
        raise ObjectDamaged(f"{key}: what is read is not what was stored", destination.name)
    first_byte = clock() - begun
    if declared.exclusive_create:
        checks.append(
            Check("create-if-absent", refused, "a second create of one name is refused" if refused else "a second create WAS ACCEPTED")
        )
    else:
        checks.append(Check("create-if-absent", False, "the store has none; prune asks for --exclusive", needed=False))
    listed = key in await list_keys(destination, PREFIX)
    said = "shows what was just created" if listed else "does not show what was just created; prune asks for --exclusive"
    checks.append(Check("list", listed, said, needed=declared.consistent_list))
    return checks, first_byte


async def _large(destination: Destination, key: str, data: bytes, clock: Callable[[], float]) -> tuple[list[Check], float, float]:
    size = len(data)
    begun = clock()
    await destination.create(key, data)
    create_rate = size / max(clock() - begun, 1e-6)
    buffer = memoryview(bytearray(size))
    begun = clock()
    await destination.read_into(key, 0, buffer)
    read_rate = size / max(clock() - begun, 1e-6)
    if buffer != data:
        raise ObjectDamaged(f"{key}: what is read is not what was stored", destination.name)
    part = buffer[: size // 8]
    await destination.read_into(key, size // 3, part)
    tail, length = await destination.read_tail(key, 100)
    if part != data[size // 3 : size // 3 + len(part)] or tail != data[-100:] or length != size:
        raise ObjectDamaged(f"{key}: a range of it is not what was stored", destination.name)
    return [Check("read", True, "whole, by range, and the tail: as it was stored")], create_rate, read_rate


async def _delete(destination: Destination, keys: list[str]) -> Check:
    try:
        for key in keys:
            await destination.delete(key)
    except DestinationDenied:
        return Check("delete", False, f"is refused: nothing is ever given back there, and {', '.join(keys)} stay", needed=False)
    for key in keys:
        if await is_there(destination, key):
            return Check("delete", False, f"{key} is still there")
    return Check("delete", True, "what is deleted is gone")


async def _clear_away(destination: Destination) -> None:
    """What an earlier trial left, if it is old: another may be going on."""
    for key in await list_keys(destination, PREFIX):
        match = _NAME.fullmatch(key)
        if match and int(match[1]) < time.time() - _STALE_SECONDS:
            with contextlib.suppress(DestinationDenied):
                await destination.delete(key)
