"""A rebuild: everything that this machine remembers of the repository, made anew from what the destinations hold."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from snapferry.engine.finding import Finder
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.pipeline.rebuild import rebuild_index
from snapferry.types import ProgressCallback

logger = logging.getLogger("snapferry")


async def rebuild(membership: Membership, memory: Memory, on_progress: ProgressCallback | None) -> None:
    """Rebuilds; see ``Repository.rebuild``."""
    await memory.rebuild()
    async with AsyncExitStack() as stack:
        writable, failures = await membership.writable(membership.replicas, stack)
        for error in failures.values():
            logger.warning("%s", error)
        loaded = await rebuild_index(membership.replicas, writable, membership.cache, membership.tools, on_progress)
    await memory.note_damage(loaded.damage)
    await Finder(membership, memory).listed(None)
