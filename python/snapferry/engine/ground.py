"""What exports of one command share: destinations opened once, and what was listed there.

What is safe to share follows from docs/format.md. Which snapshots there are may be a little old, as it is for an export that pauses: its
session reads the parent's commit again. Which packs lie where must have been listed after the session was begun, because only what is
listed under a pin is protected; so exports that begin at about the same time wait for one listing that begins after all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Generic, Self, TypeVar

from snapferry.destination import Destination
from snapferry.engine.finding import survey
from snapferry.engine.membership import Membership
from snapferry.engine.memory import Memory
from snapferry.errors import SnapferryError
from snapferry.repository.gathering import together
from snapferry.repository.presence import Presence, list_presence
from snapferry.repository.sessions import finish_commits
from snapferry.repository.survey import Survey

T = TypeVar("T")

LISTING_SECONDS = 5.0
"""How old a listing of snapshots may be for the next export that begins."""


class Rounds(Generic[T]):
    """One piece of work for all who ask for it before it begins; nobody is given what was begun before they asked.

    Arguments:
        work: begun once a round; rounds do not overlap.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._turn = asyncio.Lock()
        self._next: asyncio.Future[T | None] | None = None

    async def join(self) -> T:
        """What the next round to begin finds. Whoever asks first does the work; is that one cancelled, another one does."""
        while True:
            joined = self._next
            if joined is None:
                return await self._lead()
            await asyncio.wait({joined})
            found = joined.result()
            if found is not None:
                return found

    async def _lead(self) -> T:
        mine: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._next = mine
        found: T | None = None
        try:
            async with self._turn:
                self._next = None
                found = await self._work()
                return found
        finally:
            if self._next is mine:
                self._next = None
            mine.set_result(found)


class Ground:
    """An async context; destinations that were opened for writing are closed at its end."""

    def __init__(self, membership: Membership, memory: Memory) -> None:
        self.membership = membership
        self.memory = memory
        self._stack = AsyncExitStack()
        self._opened: dict[str, Destination] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._snapshots = Rounds(self._take_survey)
        self._surveyed: tuple[float, Survey] | None = None
        self._presence: dict[tuple[str, ...], Rounds[Presence]] = {}

    async def __aenter__(self) -> Self:
        """Opens nothing yet."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes the destinations."""
        await self._stack.aclose()

    async def writable(self, names: Iterable[str]) -> tuple[dict[str, Destination], dict[str, BaseException]]:
        """Those of ``names`` that can be written to, and why the others cannot; one that could not be opened is tried again by who asks next.

        Commits that killed writers left half done are finished when a destination is opened.
        """
        names = list(names)
        opened: dict[str, Destination] = {}
        failures: dict[str, BaseException] = {}
        for name, found in zip(names, await together(self._open(name) for name in names), strict=True):
            if isinstance(found, BaseException):
                failures[name] = found
            else:
                opened[name] = found
        return opened, failures

    async def survey(self) -> Survey:
        """The snapshots of all destinations that can be read, as they were a few seconds ago at most."""
        if self._surveyed is not None and time.monotonic() - self._surveyed[0] <= LISTING_SECONDS:
            return self._surveyed[1]
        return await self._snapshots.join()

    async def presence(self, destinations: Mapping[str, Destination]) -> Presence:
        """Which packs these hold, listed after this was called; the caller's own to change."""
        names = tuple(destinations)
        if names not in self._presence:
            listed = dict(destinations)  # The caller's own changes.
            self._presence[names] = Rounds(lambda: list_presence(listed))
        return (await self._presence[names].join()).copy()

    async def _take_survey(self) -> Survey:
        began = time.monotonic()
        found, _ = await survey(self.membership, self.memory, {**self.membership.replicas, **self._opened})
        if not found.failures:
            self._surveyed = began, found
        return found

    async def _open(self, name: str) -> Destination | BaseException:
        async with self._opening.setdefault(name, asyncio.Lock()):
            if name in self._opened:
                return self._opened[name]
            opened, failures = await self.membership.writable([name], self._stack)
            if name not in opened:
                return failures[name]
            try:
                await finish_commits(self.membership.members.keyring, opened[name])
            except SnapferryError as error:
                return error
            return self._opened.setdefault(name, opened[name])
