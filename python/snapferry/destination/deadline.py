"""A time limit that moves with the work: what counts is how long nothing has happened, not how long all of it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol


class Stalled(Exception):
    """Nothing happened for too long; the message says what was waited for."""


class Deadline:
    """What is waited for now, and until when. Whoever makes progress sets both anew."""

    def __init__(self, scope: asyncio.Timeout) -> None:
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self.missed = ""

    def expect(self, missed: str, seconds: float) -> None:
        """From now on at most ``seconds`` until the next call, or the end; ``missed`` says what was not so in the end."""
        self.missed = missed
        if not self._scope.expired():
            self._scope.reschedule(self._loop.time() + seconds)


class Timeouts(Protocol):
    """How long an HTTP server is waited for, in seconds; the names are those of the options that say so."""

    @property
    def first_byte_timeout(self) -> float:
        """Until the answer begins, once the server has all of the request."""

    @property
    def stall_timeout(self) -> float:
        """In which at least some bytes must move while a body is under way, either way."""


def expect_answer(moving: Deadline, timeouts: Timeouts) -> None:
    """The request is sent, or has no body."""
    wait = timeouts.first_byte_timeout
    moving.expect(f"no answer within {wait:g} s (first_byte_timeout)", wait)


def expect_sending(moving: Deadline, timeouts: Timeouts, *, sent: bool) -> None:
    """The next slice of a request's body is to go out; or all of it is ``sent``."""
    if sent:
        expect_answer(moving, timeouts)
    else:
        stall = timeouts.stall_timeout
        moving.expect(f"nothing could be sent for {stall:g} s (stall_timeout)", stall)


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
        raise Stalled(limit.missed) from error
