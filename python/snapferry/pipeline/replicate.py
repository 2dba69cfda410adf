"""Copies of objects from one destination to another, never of bytes that are not what their name says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DamageError, DestinationError, DestinationUnreachable, ObjectDamaged, ObjectNotFound
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.failures import combined
from snapferry.repository.objects import SMALL_OBJECT_LIMIT

_USUAL_PACK = 32 << 20


async def copy_pack(
    pack: bytes, sources: Mapping[str, Destination], target: Destination, tools: Tools, leftovers: Sequence[Destination] = ()
) -> int:
    """Copies one pack from the first of ``leftovers``, or else of ``sources`` (by speed), that has it in good order; returns its size in bytes.

    A copy at the target that is not what its name says is replaced.

    Raises:
        DamageError: no source has it in good order. DestinationError: of the target, or of the sources if none answers.
    """
    for store in leftovers:
        copied = await _copy_from(store, pack, target, tools)
        if isinstance(copied, int):
            return copied
    failures: dict[str, DestinationError] = {}
    while len(failures) < len(sources):
        name = tools.board.choose([name for name in sources if name not in failures], _USUAL_PACK)
        copied = await _copy_from(sources[name], pack, target, tools)
        if isinstance(copied, int):
            return copied
        failures[name] = copied
    key = names.pack(pack)
    if not failures or any(isinstance(error, (ObjectDamaged, ObjectNotFound)) for error in failures.values()):
        raise DamageError(f"{key}: no destination has it in good order: {'; '.join(map(str, failures.values()))}")
    raise combined(f"{key} cannot be copied", failures)


async def _copy_from(source: Destination, pack: bytes, target: Destination, tools: Tools) -> int | DestinationError:
    """The size of what was copied, or why the source could not supply it. Raises what the target fails with."""
    reserved = 0
    try:
        try:
            size = await _size(source, names.pack(pack))
            reserved = await tools.budget.acquire(min(size, tools.budget.total // 2))
            data = bytearray(size)
            await source.read_into(names.pack(pack), 0, memoryview(data))
            if await tools.threads.run(_core.blake3, data) != pack:
                raise ObjectDamaged(f"{names.pack(pack)}: its bytes are not what its name says", source.name)
        except DestinationError as error:
            return error
        await _create(pack, data, target, tools)
        return size
    finally:
        tools.budget.release(reserved)


async def _size(source: Destination, key: str) -> int:
    _, size = await source.read_tail(key, 0)
    if size > _core.MAX_PACK_LENGTH:
        raise ObjectDamaged(f"{key} is {size} bytes long, more than any pack", source.name)
    return size


async def _create(pack: bytes, data: bytearray, target: Destination, tools: Tools) -> None:
    key = names.pack(pack)
    if await target.create(key, data):
        return
    if await is_good(pack, target, tools):
        return
    # What is there is not the pack of that name, and what we hold is: nothing is lost by replacing it.
    await target.delete(key)
    if not await target.create(key, data) and not await is_good(pack, target, tools):
        raise ObjectDamaged(f"{key} is damaged there and cannot be replaced", target.name)


async def create_segment(target: Destination, segment: str, data: bytes) -> None:
    """Creates an index segment whose bytes are what its name says; what is there and is not that is replaced."""
    key = names.segment(segment)
    for _ in range(2):
        if await target.create(key, data):
            return
        try:
            if await target.read(key, len(data)) == data:
                return
        except (ObjectDamaged, ObjectNotFound):
            pass
        await target.delete(key)
    raise ObjectDamaged(f"{key} is damaged there and cannot be replaced", target.name)


async def is_good(pack: bytes, target: Destination, tools: Tools) -> bool:
    """Whether the bytes of a pack there are what its name says. One that alone cannot be read where all else can, a bad sector say, is not."""
    try:
        present = await target.read(names.pack(pack), _core.MAX_PACK_LENGTH)
    except (ObjectDamaged, ObjectNotFound):
        return False
    except DestinationUnreachable:
        await target.read(names.CONFIG, SMALL_OBJECT_LIMIT)
        return False
    return await tools.threads.run(_core.blake3, present) == pack
