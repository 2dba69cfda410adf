"""Copies of objects from one destination to another, never of bytes that are not what their name says."""

from __future__ import annotations

from collections.abc import Mapping

from snapferry import _core
from snapferry.destination import Destination
from snapferry.errors import DamageError, DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.failures import combined

_USUAL_PACK = 32 << 20


async def copy_pack(pack: bytes, sources: Mapping[str, Destination], target: Destination, tools: Tools) -> int:
    """Copies one pack from the first of ``sources`` (by speed) that has it in good order; returns its size in bytes.

    A copy at the target that is not what its name says is replaced.

    Raises:
        DamageError: no source has it in good order. DestinationError: of the target, or of the sources if none answers.
    """
    key = names.pack(pack)
    failures: dict[str, DestinationError] = {}
    while len(failures) < len(sources):
        name = tools.board.choose([name for name in sources if name not in failures], _USUAL_PACK)
        reserved = 0
        try:
            size = await _size(sources[name], key)
            reserved = await tools.budget.acquire(min(size, tools.budget.total // 2))
            try:
                data = bytearray(size)
                await sources[name].read_into(key, 0, memoryview(data))
                if await tools.threads.run(_core.blake3, data) != pack:
                    raise ObjectDamaged(f"{key}: its bytes are not what its name says", name)
            except DestinationError as error:
                failures[name] = error
                continue
            await _create(pack, data, target, tools)
            return size
        except DestinationError as error:
            if error.destination != name or name in failures:
                raise
            failures[name] = error
        finally:
            tools.budget.release(reserved)
    if not failures or any(isinstance(error, (ObjectDamaged, ObjectNotFound)) for error in failures.values()):
        raise DamageError(f"{key}: no destination has it in good order: {'; '.join(map(str, failures.values()))}")
    raise combined(f"{key} cannot be copied", failures)


async def _size(source: Destination, key: str) -> int:
    _, size = await source.read_tail(key, 0)
    if size > _core.MAX_PACK_LENGTH:
        raise ObjectDamaged(f"{key} is {size} bytes long, more than any pack", source.name)
    return size


async def _create(pack: bytes, data: bytearray, target: Destination, tools: Tools) -> None:
    key = names.pack(pack)
    if await target.create(key, data):
        return
    if await _is_good(pack, target, tools):
        return
    # What is there is not the pack of that name, and what we hold is: nothing is lost by replacing it.
    await target.delete(key)
    if not await target.create(key, data) and not await _is_good(pack, target, tools):
        raise ObjectDamaged(f"{key} is damaged there and cannot be replaced", target.name)


async def _is_good(pack: bytes, target: Destination, tools: Tools) -> bool:
    try:
        present = await target.read(names.pack(pack), _core.MAX_PACK_LENGTH)
    except ObjectDamaged:
        return False
    return await tools.threads.run(_core.blake3, present) == pack
