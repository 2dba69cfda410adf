"""One destination's place in a fan-out: what waits for it, what is on its way, and what is done when it is slow, fails, or is not there.

Its objects go out in the order in which they came, as many at once as pay (``pace``); one that must come ``after`` others waits for these. A
failure that may pass by itself opens the breaker: then one object at a time is tried, until the destination's patience is at its end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, Protocol

from snapferry.destination.contract import Destination
from snapferry.errors import DestinationDetached, DestinationError
from snapferry.transport.breaker import Breaker
from snapferry.transport.budget import ByteBudget
from snapferry.transport.headway import Headway
from snapferry.transport.item import Delivery, Item, Manner, Slow, let_go_of_locals
from snapferry.transport.marks import Marks
from snapferry.transport.pace import Pace
from snapferry.transport.sender import Sender
from snapferry.transport.spool import Spool
from snapferry.types import ChannelProgress

logger = logging.getLogger("snapferry")

_MOST_TIMES = 4
"""At most so many times the declared concurrency."""

_MOVED_AT_ONCE = 2
_READ_AT_ONCE = 3
_LATELY = 5.0


class Owner(Protocol):
    """What a channel tells whom it belongs to."""

    def let_go(self, channel: Channel, item: Item) -> None:
        """The channel needs the item's buffer no more."""

    def delivered(self, channel: Channel, delivery: Delivery) -> None:
        """An object was acknowledged."""

    def can_spare(self, channel: Channel) -> bool:
        """Whether it may be left behind."""

    def ended(self, channel: Channel) -> None:
        """The channel has failed or was detached."""

    def broke(self, error: Exception) -> None:
        """Something raised that must not: a bug, and no store's failure."""


@dataclass(slots=True)
class _Tried:
    """What is on its way: from the spool or from memory, since when; whether it has come there."""

    item: Item
    spooled: bool
    begun: float = field(default_factory=time.monotonic)
    delivered: bool = False


class Channel:
    """See the module. For one event loop.

    Arguments:
        destination: wrapped with retries by the caller; None if it cannot be opened: then everything goes to the spool.
        absent: why it cannot be opened.
        spool, budget: where objects are spooled; and what reading them back reserves, but for one at a time.
    """

    def __init__(
        self,
        name: str,
        destination: Destination | None,
        manner: Manner,
        owner: Owner,
        *,
        absent: BaseException | None = None,
        spool: Spool | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        declared = 1 if destination is None else max(1, destination.capabilities.concurrency)
        self.name = name
        self.slow: Slow = "block" if manner.slow == "spool" and spool is None else manner.slow
        self.error = absent
        self.sent = 0
        self.blame = 0.0
        self.acknowledged = False
        self._destination = destination
        self._patience = manner.patience
        self._owner = owner
        self._spool = spool
        self._budget = budget
        self._sender = None if destination is None else Sender(destination, spool, budget)
        # What is on its way cannot be taken back: one that is not to hold others up begins with one object, and gets more if they bring something.
        self._pace = Pace(declared if self.slow == "block" else 1, _MOST_TIMES * declared)
        self._breaker = Breaker()
        self._queue: deque[Item] = deque()
        self._spooled: deque[Item] = deque()
        self._tried: dict[asyncio.Task[None], _Tried] = {}
        self._moving: dict[asyncio.Task[None], Item] = {}
        self._marks = Marks()
        self._recent: deque[tuple[float, int]] = deque()
        self._begun = time.monotonic()
        self._headway = Headway(self._begun)
        self._wake: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether it takes objects."""
        return self.error is None

    @property
    def holds(self) -> bool:
        """Whether objects are kept for it: it takes them, or they go to the spool."""
        return self.alive or (self._destination is None and self._spool is not None)

    @property
    def idle(self) -> bool:
        """Whether it has all that there is; for one that is absent, whether all of it is on the disk."""
        return self._marks.all_reached if self._destination is not None else not self._queue and not self._moving

    @property
    def queued(self) -> int:
        """Bytes that wait for it, or are on their way, the spooled ones included."""
        return sum(item.size for item in (*self._queue, *self._spooled, *(tried.item for tried in self._tried.values())))

    @property
    def lag(self) -> int:
        """Of these, the bytes that some other destination has."""
        return sum(item.size for item in (*self._queue, *self._spooled, *(t.item for t in self._tried.values())) if item.taken)

    def progress(self) -> ChannelProgress:
        """A look at it."""
        now = time.monotonic()
        while self._recent and now - self._recent[0][0] > _LATELY:
            self._recent.popleft()
        speed = sum(size for _, size in self._recent) / max(min(_LATELY, now - self._begun), 0.1)
        return ChannelProgress(self._state(), self.sent, speed, self.queued, self.lag)

    def _state(self) -> Literal["live", "waiting", "spooling", "detached", "failed", "acknowledged"]:
        if self.acknowledged:
            return "acknowledged"
        if isinstance(self.error, DestinationDetached):
            return "detached"
        if self._spooled or (self._destination is None and self._spool is not None):
            return "spooling"
        if self.error is not None:
            return "failed"
        return "live" if self._breaker.failing_since is None else "waiting"

    def put(self, item: Item) -> None:
        """One more object."""
        self._queue.append(item)
        if self._destination is None:
            self._spool_all()
            return
        if self._marks.all_reached:
            self._headway.wanted(time.monotonic())
        self._marks.begin(item.number)
        self.pump()

    async def reached(self, mark: int) -> None:
        """Waits until all objects whose number is below ``mark`` are acknowledged. Raises the error that ended the channel."""
        if self.alive:
            await self._marks.reached(mark)
        if self.error is not None:
            raise self.error

    def pump(self) -> None:
        """Begins what may be begun."""
        while self.alive and not self._closed and len(self._tried) < self._at_once():
            tried = self._next()
            if tried is None:
                return
            self._breaker.begin(tried.begun)
            if not self._tried:
                self._headway.begun(tried.begun)
            task = asyncio.create_task(self._run(tried), name=f"fan-out-{self.name}")
            self._tried[task] = tried
            task.add_done_callback(self._ran)

    def fail(self, error: BaseException) -> None:
        """Ends it: nothing more is sent. What is spooled stays on the disk; the rest is let go of, what is on its way when it has stopped."""
        if not self.alive:
            return
        self.error = error
        self._close()
        self._owner.ended(self)
        self._marks.wake_all()

    def detach(self, reason: str) -> None:
        """Leaves it behind, to be caught up with later."""
        self.fail(
            DestinationDetached(
                f"{reason}, so it was left behind; `snapferry destination sync {self.name}` or the next export brings it up to date",
                self.name,
            )
        )

    def close(self) -> list[asyncio.Task[None]]:
        """Stops everything; returns what has yet to stop. What is spooled stays on the disk."""
        self._close()
        for task in self._moving:
            task.cancel()
        return [*self._tried, *self._moving]

    # What is done where it holds others up: ``relief`` decides when.

    def pinned(self) -> list[Item]:
        """What waits for it in memory."""
        return list(self._queue)

    def is_stalled(self, now: float) -> bool:
        """Whether something is on its way to it and does not move."""
        return bool(self._tried) and self._headway.is_stalled(now)

    def is_stuck(self, now: float) -> bool:
        """Whether there is something for it, and it has taken nothing for long."""
        return not self._marks.all_reached and self._headway.is_stuck(now)

    def spool_away(self, item: Item) -> None:
        """Moves an object that waits from memory to the disk. Where the spool takes no more the destination is left behind."""
        self._queue.remove(item)
        task = asyncio.create_task(self._move(item), name=f"spool-{self.name}")
        self._moving[task] = item
        task.add_done_callback(self._moved_away)

    def _spool_all(self) -> None:
        while self._queue and len(self._moving) < _MOVED_AT_ONCE:
            self.spool_away(self._queue[0])

    def _moved_away(self, task: asyncio.Task[None]) -> None:
        # Again where it was done already; one that is cancelled before its first step has done nothing.
        self._owner.let_go(self, self._moving.pop(task))
        if not task.cancelled() and (error := task.exception()) is not None:
            assert isinstance(error, Exception)
            self._owner.broke(error)
        if self._destination is None:
            self._spool_all()
            self._owner.ended(self)
        else:
            self.pump()

    @property
    def spooling_away(self) -> int:
        """How many objects are just being moved to the disk."""
        return len(self._moving)

    def interrupt(self, now: float) -> None:
        """Takes back what is on its way and does not move, as if it had failed."""
        self._breaker.failed(now, now)
        self._pace.troubled()
        self._headway.interrupted(now)
        for task in self._tried:
            task.cancel()
        self._wake_later()

    async def _move(self, item: Item) -> None:
        assert item.data is not None
        try:
            if self._spool is not None:
                await self._spool.put(item.key, item.data, item.size)
                self._spooled.append(item)
        except DestinationError as error:
            if self.alive:
                self.detach(f"it did not keep up, and nothing more can be spooled for it ({error})")
            else:
                logger.warning("nothing more is spooled for %s: %s", self.name, error)
                self._spool = None
        finally:
            self._owner.let_go(self, item)

    def _at_once(self) -> int:
        now = time.monotonic()
        state = self._breaker.state(now)
        if state == "open":
            if self._breaker.retry_at > now:
                self._wake_later()
            return 0
        return self._pace.limit if state == "closed" else 1

    def _wake_later(self) -> None:
        if self._wake is None and not self._closed:
            delay = max(0.01, self._breaker.retry_at - time.monotonic())
            self._wake = asyncio.get_running_loop().call_later(delay, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.pump()

    def _next(self) -> _Tried | None:
        """What waits in memory first, since it takes up room there."""
        first = self._marks.first_unfinished
        for queue in (self._queue, self._spooled):
            if not (self._may_read_spooled() if queue is self._spooled else self._may_send_from_memory()):
                continue
            for position, item in enumerate(queue):
                if item.after <= first:
                    del queue[position]
                    return _Tried(item, queue is self._spooled)
        return None

    def _may_send_from_memory(self) -> bool:
        """One at a time always; more from one that is not to hold others up where nobody waits for memory."""
        pressed = self.slow != "block" and self._budget is not None and self._budget.short
        return not pressed or all(tried.spooled for tried in self._tried.values())

    def _may_read_spooled(self) -> bool:
        """One at a time always; a few more where nobody waits for memory."""
        reading = sum(tried.spooled for tried in self._tried.values())
        return not reading or (reading < _READ_AT_ONCE and (self._budget is None or not self._budget.short))

    async def _run(self, tried: _Tried) -> None:
        item = tried.item
        try:
            assert self._sender is not None
            created = await self._sender.send_spooled(item) if tried.spooled else await self._sender.send(item, item.data)
        except Exception as error:  # noqa: BLE001 - whatever a store raises is the failure of this one store
            self._trouble(tried, error)
            return
        await self._delivered(tried, created)

    async def _delivered(self, tried: _Tried, created: bool) -> None:
        item, now = tried.item, time.monotonic()
        busy = len(self._tried) >= self._pace.limit and bool(self._queue or self._spooled)
        self._pace.completed(item.size, now, busy=busy)
        self._breaker.succeeded()
        self._headway.delivered(now, now - tried.begun)
        self.sent += item.size
        self._recent.append((now, item.size))
        item.taken += 1
        tried.delivered = True
        self._marks.finish(item.number)
        try:
            self._owner.delivered(self, Delivery(self.name, item.key, item.size, created, now - tried.begun))
            if tried.spooled:
                assert self._spool is not None
                await self._spool.drop(item.key)
            else:
                self._owner.let_go(self, item)
        except Exception as error:  # noqa: BLE001
            self._owner.broke(error)
        self._marks.wake()

    def _trouble(self, tried: _Tried, error: Exception) -> None:
        now = time.monotonic()
        let_go_of_locals(error)
        self._give_back(tried)
        if not (isinstance(error, DestinationError) and error.retryable):
            self.fail(error)
            return
        self._pace.troubled()
        known = self._breaker.failing_since
        self._breaker.failed(now, tried.begun)
        since = self._breaker.failing_since or now
        if self.slow == "detach" and self._owner.can_spare(self):
            self.detach(f"it does not answer as it should ({error})")
        elif now - since >= self._patience:
            self.fail(error)
        elif known is None and self.alive:
            logger.warning("%s; it is tried again for up to %.0f s", error, self._patience)

    def _give_back(self, tried: _Tried) -> None:
        """What was not delivered waits again, at its place; or is let go of where nothing is sent any more."""
        if tried.spooled:
            self._spooled.appendleft(tried.item)
        elif self.alive and not self._closed:
            self._queue.appendleft(tried.item)
        else:
            self._owner.let_go(self, tried.item)

    def _ran(self, task: asyncio.Task[None]) -> None:
        tried = self._tried.pop(task)
        if task.cancelled():
            self._breaker.given_up()
            if not tried.delivered:
                self._give_back(tried)
        elif (error := task.exception()) is not None:
            assert isinstance(error, Exception)
            self._owner.broke(error)
        self.pump()

    def _close(self) -> None:
        self._closed = True
        if self._wake is not None:
            self._wake.cancel()
        while self._queue:
            self._owner.let_go(self, self._queue.popleft())
        current = asyncio.current_task()
        for task in self._tried:
            if task is not current:
                task.cancel()
