"""Puts packs back at one destination whose snapshots need them: copies from good replicas, in a session of its own, read back afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from snapferry.destination import Destination
from snapferry.errors import DamageError, DestinationError, SnapferryError
from snapferry.pipeline.replicate import copy_pack, is_good
from snapferry.pipeline.tools import Tools
from snapferry.repository import names
from snapferry.repository.gathering import together
from snapferry.repository.sessions import Session, abandon, beating

_AT_ONCE = 4


@dataclass(slots=True)
class PutBack:
    """What came of it.

    Attributes:
        packs: those that are whole there now; ``size`` in bytes of what was copied.
        failures: by pack, why it is not.
    """

    packs: set[bytes] = field(default_factory=set)
    size: int = 0
    failures: dict[bytes, SnapferryError] = field(default_factory=dict)


async def put_back(
    packs: Iterable[bytes],
    target: Destination,
    sources: Mapping[str, Destination],
    tools: Tools,
    on_copied: Callable[[str, int], object] | None = None,
) -> PutBack:
    """Copies ``packs`` to ``target``; one that is there and broken is replaced once good bytes of it are in memory.

    A collector waits for the session, or ends it. What it has condemned, or deleted last, is not put back: a delete that comes late would
    hit it. A note that the pack is damaged there goes last.

    Raises:
        DestinationError: the target's own, which ends all of it; what was put back until then is. Fenced.
    """
    done = PutBack()
    wanted = sorted(set(packs))
    if not wanted:
        return done
    session = Session(tools.keyring, target, names.new_id(), "repair", None)
    gate = asyncio.Semaphore(max(1, min(target.capabilities.concurrency, _AT_ONCE)))

    async def one(pack: bytes) -> None:
        async with gate:
            try:
                size = await copy_pack(pack, sources, target, tools)
            except DamageError as error:
                done.failures[pack] = error
                return
            except SnapferryError as error:
                if getattr(error, "destination", "") == target.name:
                    raise
                done.failures[pack] = error
                return
            reserved = await tools.budget.acquire(min(size, tools.budget.total // 2))
            try:
                whole = await is_good(pack, target, tools)
            finally:
                tools.budget.release(reserved)
            if not whole:
                done.failures[pack] = DestinationError(f"{names.pack(pack)} does not read back as it was written", target.name)
                return
            await target.delete(names.damaged(pack))
            done.packs.add(pack)
            done.size += size
            if on_copied is not None:
                on_copied(target.name, size)

    try:
        begun = await session.begin()
        for pack in begun.avoided.intersection(wanted):
            done.failures[pack] = DestinationError(
                f"{names.pack(pack)} is being deleted there by a prune, or was by the last one; run this again once there has been another prune",
                target.name,
            )
        async with beating({target.name: session}):
            await together(one(pack) for pack in wanted if pack not in begun.avoided)
    finally:
        await abandon([session])
    return done
