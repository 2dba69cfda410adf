"""One range of a pack, from whoever brings it first: asked of one replica, and of others where it is late, fails or lies.

A read writes only into its own buffer, which is given back when that read has ended: so what is used again is written to by nobody.
What came is checked one after the other; the first that passes ends the race, and nothing that came later is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from snapferry.destination import Destination
from snapferry.errors import DestinationError, DestinationUnreachable, ObjectDamaged
from snapferry.pipeline.account import Account, NoReplica
from snapferry.pipeline.leavings import PATIENCE, Leavings
from snapferry.repository import names
from snapferry.transport import Lateness, Meter, ReplicaState, Wanted, choose

Check = Callable[[memoryview], Awaitable[str | None]]
"""Uses the bytes of a range if they are what they should be; else says why not. Called anew with another replica's bytes then."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A buffer to read into, and what gives it back."""

    buffer: memoryview
    give_back: Callable[[], object]


Spare = Callable[[], Memory | None]
"""Another buffer of the range's length, if there is one now."""

_LOOK_AGAIN = 0.1
"""Seconds after which a read that should be asked of another replica, and could not be, is looked at again."""

_CLEARLY = 2.25
"""Times that a read must have taken what its own or another's prediction says before losing a race counts against its replica."""


@dataclass(slots=True, eq=False)
class _Run:
    name: str
    memory: Memory
    stalled: bool = False


class Race:
    """For one range of one pack.

    Arguments:
        memory: of the range's length, for the first read.
        spare: gives more for copies. All of it has been given back when the race ends, but for what is in use by ``leavings``.
        leavings: takes reads that do not end when they are cancelled; None: they are waited for.
        urgent: small, and somebody waits for it alone: it takes no slot.
    """

    def __init__(
        self,
        account: Account,
        pack: bytes,
        offset: int,
        memory: Memory,
        check: Check,
        spare: Spare,
        leavings: Leavings | None,
        *,
        urgent: bool,
    ) -> None:
        self._account = account
        self._board = account.board
        self._pack = pack
        self._where = (names.pack(pack), offset)
        self._size = memory.buffer.nbytes
        self._check = check
        self._spare = spare
        self._leavings = leavings
        self._urgent = urgent
        self._free = [memory]
        self._runs: dict[asyncio.Task[None], _Run] = {}
        self._failures: dict[str, DestinationError] = {}
        self._asked_patiently: set[str] = set()
        self._nudge: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Returns when the check has passed.

        Raises:
            NoReplica: none is left to ask. What the check raises.
        """
        self._board.when_idle(self._tell)
        try:
            while True:
                if not self._runs:
                    await self._ask()
                await asyncio.wait([*self._runs, self._nudge], timeout=self._patience(), return_when=asyncio.FIRST_COMPLETED)
                if self._nudge.done():
                    self._nudge = asyncio.get_running_loop().create_future()
                for task in [task for task in self._runs if task.done()]:
                    if await self._settle(task):
                        return
                self._help()
        finally:
            self._board.when_idle_no_more(self._tell)
            await self._stop()

    def _tell(self) -> None:
        if not self._nudge.done():
            self._nudge.set_result(None)

    async def _ask(self) -> None:
        """Begins a read at the best replica that was not asked yet; at last once more, patiently, where the trouble may have passed."""
        patient = self._account.alone or not self._account.ranks(self._pack, self._failures)
        if not self._wanted(patient).ranks:
            problem = NoReplica(self._pack, self._failures)
            if not problem.answered:
                problem.answered = await self._account.somebody_is_there(self._pack, self._failures)
            raise problem
        if self._urgent:
            wanted = self._wanted(patient)
            name = choose(wanted.candidates(self._board.states(wanted.ranks)), self._size)
        else:
            name = await self._board.take(partial(self._wanted, patient), first=bool(self._failures))
        if self._failures:
            self._account.failovers += 1
        else:
            self._account.hedges.asked += self._size
        if patient:
            self._asked_patiently.add(name)
        self._begin(name, self._free.pop(), patient=patient, slot=not self._urgent)

    def _wanted(self, patient: bool) -> Wanted:
        """Who may be asked next: each once, and those that failed in a way that may pass once more with patience; a lone one only so."""
        if not patient:
            return Wanted(self._size, self._account.ranks(self._pack, self._failures))
        final = {name for name, error in self._failures.items() if not error.retryable}
        return Wanted(self._size, self._account.ranks(self._pack, final | self._asked_patiently))

    def _begin(self, name: str, memory: Memory, *, patient: bool = False, slot: bool = False) -> None:
        task = asyncio.create_task(self._read(self._account.destination(name, patient=patient), memory.buffer))
        if slot:
            task.add_done_callback(lambda _: self._board.give_back(name))
        self._runs[task] = _Run(name, memory)

    async def _read(self, destination: Destination, buffer: memoryview) -> None:
        await destination.read_into(*self._where, buffer)

    async def _settle(self, task: asyncio.Task[None]) -> bool:
        """What came of a read that has ended; True if that ends the race."""
        run = self._runs.pop(task)
        error = _error_of(task, run)
        if error is None:
            self._account.came(run.name, self._size)
            try:
                reason = await self._check(run.memory.buffer)
            finally:
                self._free.append(run.memory)
            if reason is None:
                self._compare(run)
                return True
            self._meter(run).distrust()
            error = ObjectDamaged(f"{self._where[0]}: {reason}", run.name)
        else:
            self._free.append(run.memory)
        if not isinstance(error, DestinationError):
            raise error
        self._account.reject(self._pack, run.name, error)
        self._failures[run.name] = error
        self._board.look()
        return False

    def _patience(self) -> float | None:
        """Seconds until something has to be done about the reads under way; None if nothing can be."""
        others = self._others()
        if not others:
            return None
        due = []
        for run in self._runs.values():
            since, limits = self._standing(run, others)
            if since is None or limits is None:
                due.append(_LOOK_AGAIN)
            else:
                due += [limit - since for limit in (limits.late, limits.stalled) if limit > since] or [_LOOK_AGAIN]
        return max(min(due), 0.001)

    def _help(self) -> None:
        """Asks another replica too if all reads under way are late; or if nothing else is left to do, and it would be done first."""
        others = self._others() if self._runs else []
        if not others:
            return
        late = stalled = True
        left = float("inf")
        for run in self._runs.values():
            meter = self._meter(run)
            since, limits = self._standing(run, others)
            if since is None or limits is None:
                return
            late, stalled = late and since >= limits.late, stalled and since >= limits.stalled
            if since >= limits.stalled and not run.stalled:
                run.stalled = True
                meter.stalled(self._where)
                self._board.look()
            # What is late takes, as far as anybody can tell, as long again.
            left = min(left, meter.left(self._where) if since < limits.late else since)
        if stalled:
            self._move(others)
        elif late:
            self._copy([other for other in others if other.predicted(self._size) < 2 * left])
        elif self._board.nothing_waits and not self._urgent and len(self._runs) == 1:
            self._copy([other for other in others if other.measured and not other.queued and other.predicted(self._size) < left])

    def _standing(self, run: _Run, others: list[ReplicaState]) -> tuple[float | None, Lateness | None]:
        """How long it takes already, and when it is late; None while it waits for its turn."""
        known = [other.predicted(self._size) for other in others if other.measured and not other.failed]
        meter = self._meter(run)
        return meter.since(self._where), meter.lateness(self._where, min(known, default=None))

    def _others(self) -> list[ReplicaState]:
        """Who may be asked too: those of the best rank that work and were not asked yet."""
        ranks = self._account.ranks(self._pack, {run.name for run in self._runs.values()} | self._failures.keys())
        return Wanted(self._size, ranks).candidates(self._board.states(ranks))

    def _copy(self, others: list[ReplicaState]) -> None:
        """A copy within the budget, from one that is no worse in rank than who was asked already."""
        ranks = self._account.ranks(self._pack, ())
        worst = max(ranks[run.name] for run in self._runs.values())
        working = [other for other in others if not other.failed and ranks[other.name] <= worst]
        hedges = self._account.hedges
        if working and self._take_buffer() and hedges.take(self._size, self._board.coming):
            self._begin(choose(working, self._size), self._free.pop())

    def _move(self, others: list[ReplicaState]) -> None:
        """Elsewhere, whatever it costs: beside the reads that hang while there is memory for that, else in their place."""
        if self._take_buffer():
            self._account.failovers += 1
            self._begin(choose(others, self._size), self._free.pop())
        else:
            next(iter(self._runs)).cancel()

    def _take_buffer(self) -> bool:
        if not self._free:
            another = self._spare()
            if another is None:
                return False
            self._free.append(another)
        return True

    def _compare(self, winner: _Run) -> None:
        """Who was late already when the winner was asked, and is still not done, hangs."""
        other = self._meter(winner).state()
        for run in self._runs.values():
            since, limits = self._standing(run, [other])
            if since is None or limits is None or run.stalled or since < limits.late:
                continue
            if since >= _CLEARLY * other.after(self._size):
                self._meter(run).stalled(self._where)

    async def _stop(self) -> None:
        """Ends the reads that are left and waits for them, however often it is cancelled, but for those that do not end; gives the memory back."""
        cancellation: asyncio.CancelledError | None = None
        for task in self._runs:
            task.cancel()
        until = asyncio.get_running_loop().time() + PATIENCE
        while left := [task for task in self._runs if not task.done()]:
            timeout = None if self._leavings is None else until - asyncio.get_running_loop().time()
            if timeout is not None and timeout <= 0:
                break
            try:
                await asyncio.wait(left, timeout=timeout)
            except asyncio.CancelledError as error:
                cancellation = error
        for task, run in self._runs.items():
            if task.done():
                if _error_of(task, run) is None:
                    self._account.came(run.name, self._size)
                self._free.append(run.memory)
            else:
                self._leave(task, run)
        self._runs.clear()
        while self._free:
            self._free.pop().give_back()
        if cancellation is not None:
            raise cancellation

    def _leave(self, task: asyncio.Task[None], run: _Run) -> None:
        assert self._leavings is not None
        meter = self._meter(run)
        meter.stuck += 1

        def ended() -> None:
            meter.stuck -= 1
            run.memory.give_back()

        self._leavings.add(task, run.name, ended)

    def _meter(self, run: _Run) -> Meter:
        return self._board.meters[run.name]


def _error_of(task: asyncio.Task[None], run: _Run) -> BaseException | None:
    if task.cancelled():
        return DestinationUnreachable("it hangs: nothing came for much longer than it usually takes", run.name)
    return task.exception()
