"""Reads that were cancelled and have not ended: a thread in a system call that hangs cannot be stopped, and goes on to write into its buffer.

Whoever asked goes on without them. Their buffers are given back when they end, and nobody leaves before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

logger = logging.getLogger("snapferry")

PATIENCE = 0.25
"""Seconds in which nearly every store ends a cancelled read."""

_TOLD_AFTER = 2.0


class Leavings:
    """A context; leaving it waits until all have ended, however often it is cancelled, and says so if that takes long."""

    def __init__(self) -> None:
        self._reads: dict[asyncio.Task[None], str] = {}

    def add(self, read: asyncio.Task[None], name: str, ended: Callable[[], object]) -> None:
        """A cancelled read of the replica of that name; ``ended`` is called when it has ended."""
        self._reads[read] = name

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                task.exception()  # Looked at, so that nobody complains that it was not.
            del self._reads[task]
            ended()

        read.add_done_callback(done)

    async def __aenter__(self) -> Self:
        """Nothing is left yet."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Waits."""
        cancellation: asyncio.CancelledError | None = None
        told = False
        while self._reads:
            try:
                await asyncio.wait(list(self._reads), timeout=None if told else _TOLD_AFTER)
                # Its callbacks, ours among them, run in the turn after it is done.
                await asyncio.sleep(0)
            except asyncio.CancelledError as caught:
                cancellation = caught
            if self._reads and not told:
                told = True
                logger.warning("waiting for reads that hang and cannot be stopped, at %s", ", ".join(sorted(set(self._reads.values()))))
        if cancellation is not None:
            raise cancellation
