"""Moments at which something waits while something else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from snapferry.destination import Destination
from snapferry.errors import DestinationError
from snapferry.testing.faults import FailsNth


async def until(what: Callable[[], bool]) -> None:
    """Waits for something that other tasks bring about."""
    async with asyncio.timeout(60):
        while not what():
            await asyncio.sleep(0.001)


class _Gate(FailsNth):
    """The nth operation below a prefix waits until it is let go."""

    def __init__(self, inner: Destination, operation: Any, prefix: str, nth: int) -> None:
        super().__init__(inner, operation, 0, lambda: DestinationError("never"))
        self.reached, self.released = asyncio.Event(), asyncio.Event()
        self._prefix, self._left = prefix, nth

    async def before(self, operation: str, key: str) -> None:
        if operation == self._operation and key.startswith(self._prefix):
            self._left -= 1
            if self._left == 0:
                self.reached.set()
                await self.released.wait()


class Gates:
    """To be put before a place: the nth operation on keys with a prefix, of each handle that is opened there, waits for ``release``."""

    def __init__(self, operation: str, prefix: str, nth: int) -> None:
        self._how = operation, prefix, nth
        self._all: list[_Gate] = []

    def __call__(self, inner: Destination) -> Destination:
        self._all.append(_Gate(inner, *self._how))
        return self._all[-1]

    @property
    def reached(self) -> bool:
        """Whether any waits."""
        return any(gate.reached.is_set() for gate in self._all)

    def release(self) -> None:
        """Lets all go on."""
        for gate in self._all:
            gate.released.set()
