"""One object to many destinations at once, each at its own pace, so that a slow, failing or absent one never holds up the others more than it may.

For objects that are named by their content (packs, segments): there a taken key is success, once what is there was compared. Sending never waits: what is in flight is
bounded by the byte budget of whoever sends. A destination with a final error gets nothing more, and what was queued for it is dropped. Where somebody
waits for memory, what only slow destinations still need is moved to the spool, or these are detached, as each one's manner says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

from typing_extensions import Buffer

from snapferry.destination.contract import Destination
from snapferry.errors import SnapferryError, worst_of
from snapferry.transport.budget import ByteBudget
from snapferry.transport.channel import Channel
from snapferry.transport.item import Delivery, Item, Manner, Slow
from snapferry.transport.relief import Look, relieve
from snapferry.transport.spool import Spool
from snapferry.types import ChannelProgress

_LOOK_SECONDS = 0.1
_SPOOLED_AT_ONCE = 2


class TooFewCopies(SnapferryError):
    """Fewer destinations are left than must acknowledge.

    Attributes:
        failures: the error of each destination that failed, by name.
        exit_code: the first that applies of 12, 10, 11, 14, 13, 1 (interfaces: exit codes).
    """

    def __init__(self, needed: int, failures: dict[str, BaseException]) -> None:
        reasons = "; ".join(str(error) or type(error).__name__ for error in failures.values())
        super().__init__(f"too few destinations are left to make {needed} {'copy' if needed == 1 else 'copies'}: {reasons}")
        self.failures = dict(failures)
        self.exit_code = worst_of(tuple(failures.values()))


class FanOut:
    """A context in which objects are sent to all of ``destinations``.

    Leaving it without an error waits as ``drain`` does; leaving it with one, or cancelled, stops the creates under way, each of
    which leaves its object whole or not at all. Either way every ``on_done`` has been called by then.

    Arguments:
        destinations: of different names; wrapped with retries by the caller.
        needed: how many of them must stay alive.
        enough: whether those of these names are enough; by default where there are ``needed``.
        manners: by name, how each is treated; those that are not named make everybody wait.
        absent: destinations that cannot be opened, and why: for them everything is kept in the spool.
        budget: whose shortness makes room be looked for.
        spool: where objects go that are to be spooled.
        on_result: called with each ``Delivery``.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        *,
        needed: int = 1,
        enough: Callable[[frozenset[str]], bool] | None = None,
        manners: Mapping[str, Manner] = MappingProxyType({}),
        absent: Mapping[str, BaseException] = MappingProxyType({}),
        budget: ByteBudget | None = None,
        spool: Spool | None = None,
        on_result: Callable[[Delivery], object] | None = None,
    ) -> None:
        def channel(name: str, destination: Destination | None) -> Channel:
            return Channel(name, destination, manners.get(name, Manner()), self, absent=absent.get(name), spool=spool, budget=budget)

        self._channels = {destination.name: channel(destination.name, destination) for destination in destinations}
        if len(self._channels) != len(destinations):
            raise ValueError("two destinations of one name")
        self._absent = {name: channel(name, None) for name in absent if spool is not None}
        self._needed = needed
        self._enough = enough or (lambda alive: len(alive) >= needed)
        self._budget = budget
        self._on_result = on_result
        self._sent = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._broken: Exception | None = None
        self._pressed = asyncio.Event()
        self._relieving: asyncio.Task[None] | None = None

    @property
    def alive(self) -> frozenset[str]:
        """The names of the destinations that have not failed and were not detached."""
        return frozenset(name for name, channel in self._channels.items() if channel.alive)

    @property
    def failed(self) -> dict[str, BaseException]:
        """The final error of each destination that failed or was detached, by name."""
        return {name: channel.error for name, channel in self._channels.items() if channel.error is not None}

    @property
    def bytes_sent(self) -> dict[str, int]:
        """Bytes of acknowledged objects, by name."""
        return {name: channel.sent for name, channel in self._channels.items()}

    def statistics(self) -> dict[str, ChannelProgress]:
        """How each destination stands, the absent ones included, by name."""
        return {name: channel.progress() for name, channel in {**self._channels, **self._absent}.items()}

    def note_acknowledged(self, name: str) -> None:
        """The destination holds all that was meant for it, and says so: only for ``statistics``."""
        self._channels[name].acknowledged = True

    async def __aenter__(self) -> Self:
        """Begins to look for room whenever the budget is short."""
        if self._budget is not None and any(channel.slow != "block" for channel in self._channels.values()):
            self._budget.add_keeper(self._pressed.set)
            self._relieving = asyncio.create_task(self._relieve_forever(), name="fan-out-relief")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drains, unless there is an error; then stops everything and waits for it, however often it is cancelled."""
        try:
            if error is None:
                await self.drain()
        finally:
            await self._end()

    async def send(
        self,
        key: str,
        data: Buffer,
        size: int,
        on_done: Callable[[], object],
        *,
        only: Collection[str] | None = None,
        after: int = 0,
    ) -> None:
        """Queues one immutable object for every live destination, or those of the names in ``only``.

        Arguments:
            key: the object's name, which its content decides.
            data: its bytes; a reference is kept until the last destination is done with it, or it is in the spool.
            size: its length in bytes.
            on_done: called once in any case, also if this raises: when nobody needs ``data`` any more, acknowledged or not.
            only: names; those that failed or are unknown are passed over.
            after: a ``mark``: each destination gets the object once it has acknowledged all that was sent to it before that.

        Raises:
            TooFewCopies: those that are alive are not enough.
        """
        wanted = {**self._channels, **self._absent}
        holders = {channel for name, channel in wanted.items() if channel.holds and (only is None or name in only)}
        if not holders or self._too_few() or self._broken is not None:
            on_done()
            self._check()
            return
        item = Item(key, data, size, self._sent, after, on_done, set(holders))
        self._sent += 1
        for channel in holders:
            channel.put(item)

    def mark(self) -> int:
        """The place in the stream after all that was sent so far, for ``after`` and ``reached``."""
        return self._sent

    async def reached(self, name: str, mark: int) -> None:
        """Waits until a destination has acknowledged all that was sent to it before ``mark``. Raises the error with which it failed."""
        await self._channels[name].reached(mark)
        if self._broken is not None:
            raise self._broken

    def fail(self, name: str, error: BaseException) -> None:
        """Counts a destination as failed for a reason that lies outside its stream of objects: a fenced session, say."""
        self._channels[name].fail(error)

    async def drain(self) -> None:
        """Waits until everything sent is acknowledged by every destination, or dropped for it; or on the disk, for one that is absent.

        Raises:
            TooFewCopies: as soon as those that are alive are not enough.
        """
        while True:
            self._check()
            if all(channel.idle or not channel.holds for channel in (*self._channels.values(), *self._absent.values())):
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    # What channels tell (``channel.Owner``).

    def let_go(self, channel: Channel, item: Item) -> None:
        """The last to let go of an item gives its buffer back."""
        item.holders.discard(channel)
        if not item.holders and item.data is not None:
            item.data = None
            try:
                item.on_done()
            except Exception as error:  # noqa: BLE001
                self.broke(error)
        self._notify()

    def delivered(self, channel: Channel, delivery: Delivery) -> None:
        """Tells whoever wants to hear of it."""
        del channel
        if self._on_result is not None:
            self._on_result(delivery)
        self._notify()

    def can_spare(self, channel: Channel) -> bool:
        """Whether those that are left without it are enough."""
        return self._enough(self.alive - {channel.name})

    def ended(self, channel: Channel) -> None:
        """One destination fewer."""
        del channel
        self._notify()

    def broke(self, error: Exception) -> None:
        """A callback raised, which is a bug and no store's failure: everything stops, and whoever sends or drains next hears of it."""
        if self._broken is None:
            self._broken = error
            for channel in self._channels.values():
                channel.fail(error)
        self._notify()

    async def _relieve_forever(self) -> None:
        assert self._budget is not None
        while True:
            await self._pressed.wait()
            self._pressed.clear()
            before = time.monotonic()
            while self._budget.short:
                await asyncio.sleep(_LOOK_SECONDS)
                now = time.monotonic()
                self._relieve(now, now - before)
                before = now

    def _relieve(self, now: float, seconds: float) -> None:
        live = [channel for channel in self._channels.values() if channel.alive]
        stuck = all(channel.is_stuck(now) or channel.idle for channel in live)
        waiting = {channel.name: [item for item in channel.pinned() if _is_pinned(item, stuck=stuck)] for channel in live}
        looks = [
            Look(
                channel.name,
                self._slow(channel),
                len(waiting[channel.name]),
                channel.lag,
                channel.idle,
                channel.is_stalled(now),
                channel.blame,
            )
            for channel in live
        ]
        relief = relieve(looks, seconds)
        for name, blame in relief.blame.items():
            self._channels[name].blame = blame
        for name in relief.interrupt:
            self._channels[name].interrupt(now)
        for name in relief.spool:
            channel = self._channels[name]
            for item in waiting[name][: max(0, _SPOOLED_AT_ONCE - channel.spooling_away)]:
                channel.spool_away(item)
        if relief.detach is not None:
            self._channels[relief.detach].detach("it did not keep up with the others")

    def _slow(self, channel: Channel) -> Slow:
        """What is done where it holds others up: one that is needed is not left behind, but waited for."""
        return "block" if channel.slow == "detach" and not self.can_spare(channel) else channel.slow

    async def _end(self) -> None:
        if self._budget is not None:
            self._budget.remove_keeper(self._pressed.set)
        cancellation: asyncio.CancelledError | None = None
        if self._relieving is not None:
            self._relieving.cancel()
        while pending := [task for channel in (*self._channels.values(), *self._absent.values()) for task in channel.close()]:
            try:
                await asyncio.wait(pending)
            except asyncio.CancelledError as error:
                cancellation = error
        if cancellation is not None:
            raise cancellation

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _too_few(self) -> bool:
        return not self._enough(self.alive)

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._too_few():
            raise TooFewCopies(self._needed, self.failed)


def _is_pinned(item: Item, *, stuck: bool) -> bool:
    """Whether memory is taken up by this item only because of those that need not be waited for."""
    return (item.taken > 0 or stuck) and all(holder.slow != "block" for holder in item.holders)
