"""A collector waits for the sessions that do not know of its collection, and ends those that have gone silent.

Clocks only say when to act. A session that is ended too early loses its work, never a block: whoever creates its ``end`` has decided.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from snapferry import _core
from snapferry.destination import Destination
from snapferry.repository.reached import LiveSession, Reached, Tree, list_reached
from snapferry.repository.sessions import BEAT_SECONDS, fence

logger = logging.getLogger("snapferry")

LEASE_SECONDS = 3 * BEAT_SECONDS
"""A session without a beat for so long may be ended."""

_LONG_AGO = 4
"""Leases. A session whose own clock says that it was last alive so long ago is not watched for a lease first: clocks differ, but not by so much."""

_POLL_SECONDS = 2.0


@dataclass(slots=True)
class _Watched:
    beat: int
    since: float


@dataclass(slots=True)
class Waiting:
    """What is waited for at one destination.

    Arguments:
        lease: seconds without a beat after which a session is ended.
    """

    keyring: _core.Keyring
    destination: Destination
    number: int
    lease: float
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _seen: dict[str, _Watched] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    async def end_long_dead(self) -> None:
        """Ends the sessions that by their own clocks were last alive long ago: what they have pinned must not stand in the way."""
        reached = await list_reached(self.keyring, self.destination)
        for session in reached.live:
            if self._long_dead(session):
                await fence(self.keyring, self.destination, session.id)

    async def until_known(self, known: frozenset[Tree]) -> Reached:
        """Waits until every session has ended or accepted the collection; returns a listing made after that, in which it shows."""
        while True:
            reached = await list_reached(self.keyring, self.destination, known)
            left = [session for session in reached.live if session.accepted < self.number]
            if not left:
                return reached
            if not await self._end_silent(left):
                await asyncio.sleep(min(_POLL_SECONDS, self.lease / 4))

    async def _end_silent(self, sessions: Iterable[LiveSession]) -> bool:
        """Ends those that have been silent for too long; returns whether there was any."""
        ended = False
        for session in sessions:
            watched = self._seen.get(session.id)
            if watched is None or watched.beat != session.beat:
                watched = self._seen[session.id] = _Watched(session.beat, self.clock())
            if self.clock() - watched.since >= self.lease or self._long_dead(session):
                await fence(self.keyring, self.destination, session.id)
                ended = True
            elif session.id not in self._told:
                self._told.add(session.id)
                logger.warning(
                    "%s: waiting for an export of %s (session %s), which is under way or was killed; it is given up after %.0f s without a sign of life"
                    " (a shorter --lease, if it is known to be dead)",
                    self.destination.name, session.volume, session.id, self.lease,
                )  # fmt: skip
        return ended

    def _long_dead(self, session: LiveSession) -> bool:
        return self.wall() - session.at >= _LONG_AGO * self.lease
