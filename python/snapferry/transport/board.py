"""The meters of several destinations, and who of those that wait for a replica gets which: extents are bound late, when a replica has room.

So no replica has a long queue while another is idle, and none that fails or slows down takes with it what could be read elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from snapferry.destination.contract import Destination
from snapferry.transport.meter import Meter, Metered
from snapferry.transport.replicas import ReplicaState, Wanted, assign, choose


@dataclass(slots=True, eq=False)
class _Ticket:
    wanted: Callable[[], Wanted]
    given: asyncio.Future[str]


class ReplicaBoard:
    """What is known of the replicas, and their slots. For one event loop.

    Arguments:
        names: of the destinations.
        clock: of time; a test gives its own.
    """

    def __init__(self, names: Iterable[str], clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.meters = {name: Meter(name, clock) for name in names}
        self._waiting: list[_Ticket] = []
        self._coming = 0
        self._idle: dict[Callable[[], object], None] = {}

    def metered(self, destination: Destination) -> Destination:
        """``destination``, whose reads are measured here."""
        return Metered(destination, self.meter(destination.name))

    def meter(self, name: str) -> Meter:
        """The meter of that name, made if there is none."""
        return self.meters.setdefault(name, Meter(name, self.clock))

    def states(self, names: Iterable[str]) -> tuple[ReplicaState, ...]:
        """A frozen look at the destinations of these names."""
        return tuple(self.meters[name].state() for name in names)

    def choose(self, names: Iterable[str], size: int) -> str:
        """Which of these to ask for ``size`` bytes now; ``ValueError`` if there is none."""
        return choose(self.states(names), size)

    @property
    def coming(self) -> int:
        """Bytes that will be asked for, and have no place in the queue yet."""
        return self._coming

    @property
    def nothing_waits(self) -> bool:
        """Whether all that is to be read is being read."""
        return not self._coming and not self._waiting

    def expect(self, size: int) -> None:
        """So many bytes more will be asked for; negative for those that have been, or will not be any more."""
        self._coming += size

    async def take(self, wanted: Callable[[], Wanted], *, first: bool = False) -> str:
        """Waits for a slot at the replica that is best for it by then, and returns its name; ``give_back`` ends it.

        Arguments:
            wanted: asked whenever there is something to give.
            first: before all others that wait: it has been waited for already.
        """
        ticket = _Ticket(wanted, asyncio.get_running_loop().create_future())
        self._waiting.insert(0 if first else len(self._waiting), ticket)
        self.look()
        try:
            return await ticket.given
        except asyncio.CancelledError:
            if ticket.given.done() and not ticket.given.cancelled():
                # Given and cancelled in the same turn of the loop: nobody will hear of it.
                self.give_back(ticket.given.result())
            else:
                self._waiting.remove(ticket)
            raise

    def give_back(self, name: str) -> None:
        """What held a slot there has ended."""
        self.meters[name].running -= 1
        self.look()

    def look(self) -> None:
        """Gives out what there is to give: to be called when something has changed."""
        if self._waiting:
            states = tuple(meter.state() for meter in self.meters.values())
            waiting = [ticket for ticket in self._waiting if not ticket.given.cancelled()]
            for number, name in assign(states, [ticket.wanted() for ticket in waiting], self._coming):
                ticket = waiting[number]
                self._waiting.remove(ticket)
                self.meters[name].running += 1
                ticket.given.set_result(name)
        if self.nothing_waits:
            for tell in tuple(self._idle):
                tell()

    def when_idle(self, tell: Callable[[], object]) -> None:
        """From now on ``tell`` is called whenever something has changed and nothing waits: then there may be room for copies."""
        self._idle[tell] = None

    def when_idle_no_more(self, tell: Callable[[], object]) -> None:
        """Ends what ``when_idle`` began."""
        self._idle.pop(tell, None)
