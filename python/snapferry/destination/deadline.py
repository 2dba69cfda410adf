"""A time limit that moves with the work: what counts is how long nothing has happened, not how long all of it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Stalled(Exception):
    """Nothing happened for too long. ``waiting_for`` says for what, ``seconds`` for how long."""

    def __init__(self, waiting_for: str, seconds: float) -> None:
        super().__init__(f"{waiting_for} for {seconds:g} s")
        self.waiting_for = waiting_for
        self.seconds = seconds


class Deadline:
    """What is waited for now, and until when. ``expect`` sets both anew; whoever makes progress calls it again."""

    def __init__(self, scope: asyncio.Timeout) -> None:
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self.waiting_for = ""
        self.seconds = 0.0

    def expect(self, waiting_for: str, seconds: float) -> None:
        """From now on at most ``seconds`` until the next call, or the end."""
        self.waiting_for, self.seconds = waiting_for, seconds
        if not self._scope.expired():
            self._scope.reschedule(self._loop.time() + seconds)


@asynccontextmanager
async def deadline() -> AsyncIterator[Deadline]:
    """Runs the block under a ``Deadline``; one that is missed cancels the block and raises ``Stalled``."""
    scope = asyncio.timeout(None)
    limit = Deadline(scope)
    try:
        async with scope:
            yield limit
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise Stalled(limit.waiting_for, limit.seconds) from error
