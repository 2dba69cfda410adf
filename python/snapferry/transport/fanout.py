"""One object to many destinations at once, each with a cursor of its own, so that a slow or failing one never holds up the others.

For objects that are named by their content (packs, segments): there a taken key is success, once what is there was compared. Sending never waits: what is in flight is
bounded by the byte budget of whoever sends. A destination with a final error gets nothing more, and what was queued for it is dropped.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from typing_extensions import Buffer

from snapferry.destination.contract import Destination
from snapferry.errors import ObjectDamaged, SnapferryError, worst_of

_COMPARED = 1 << 20
"""So many bytes are read at once of an object that is there already."""


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


@dataclass(frozen=True, slots=True)
class Delivery:
    """One object acknowledged by one destination. ``created`` is False if the key was taken. ``size`` in bytes."""

    destination: str
    key: str
    size: int
    created: bool
    seconds: float


@dataclass(slots=True, eq=False)
class _Item:
    """One object on its way. Its buffer is let go of when the last cursor is done with it."""

    key: str
    data: Buffer | None
    size: int
    on_done: Callable[[], object]
    cursors: int


class _Cursor:
    """One destination's place in the stream."""

    def __init__(self, destination: Destination, number: int) -> None:
        self.destination = destination
        self.bit = 1 << number
        self.queue: deque[_Item] = deque()
        self.ready = asyncio.Semaphore(0)
        self.workers: set[asyncio.Task[None]] = set()
        self.queued = 0
        self.sent = 0


class FanOut:
    """A context in which objects are sent to all of ``destinations``.

    Leaving it without an error waits as ``drain`` does; leaving it with one, or cancelled, stops the creates under way, each of
    which leaves its object whole or not at all. Either way every ``on_done`` has been called by then.

    Arguments:
        destinations: of different names; wrapped with retries by the caller.
        needed: how many of them must stay alive.
        on_result: called with each ``Delivery``.
    """

    def __init__(
        self, destinations: Sequence[Destination], *, needed: int = 1, on_result: Callable[[Delivery], object] | None = None
    ) -> None:
        self._cursors = {destination.name: _Cursor(destination, number) for number, destination in enumerate(destinations)}
        if len(self._cursors) != len(destinations):
            raise ValueError("two destinations of one name")
        self._needed = needed
        self._on_result = on_result
        self._failed: dict[str, BaseException] = {}
        self._acknowledged: dict[str, int] = {}
        self._in_flight = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._broken: Exception | None = None

    @property
    def alive(self) -> frozenset[str]:
        """The names of the destinations that have not failed."""
        return frozenset(self._cursors.keys() - self._failed.keys())

    @property
    def failed(self) -> dict[str, BaseException]:
        """The final error of each destination that failed, by name."""
        return dict(self._failed)

    @property
    def bytes_sent(self) -> dict[str, int]:
        """Bytes of acknowledged objects, by name."""
        return {name: cursor.sent for name, cursor in self._cursors.items()}

    @property
    def bytes_queued(self) -> dict[str, int]:
        """Bytes on their way, by name."""
        return {name: cursor.queued for name, cursor in self._cursors.items()}

    def acknowledged(self, key: str) -> frozenset[str]:
        """The names of the destinations that have acknowledged the object, whether or not they failed later."""
        bits = self._acknowledged.get(key, 0)
        return frozenset(name for name, cursor in self._cursors.items() if bits & cursor.bit)

    def forget(self, keys: Collection[str]) -> None:
        """Drops what is remembered of who acknowledged these, to bound memory."""
        for key in keys:
            self._acknowledged.pop(key, None)

    async def __aenter__(self) -> Self:
        """Starts a few workers for each destination, as many as it can use."""
        for name, cursor in self._cursors.items():
            for number in range(max(1, cursor.destination.capabilities.concurrency)):
                worker = asyncio.create_task(self._work(name, cursor), name=f"fan-out-{name}-{number}")
                cursor.workers.add(worker)
                # A task that was cancelled keeps the frames it was cancelled in, and they the pack.
                worker.add_done_callback(cursor.workers.discard)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Drains, unless there is an error; then stops the workers and waits for them, however often it is cancelled."""
        try:
            if error is None:
                await self.drain()
        finally:
            await self._end()

    async def send(self, key: str, data: Buffer, size: int, on_done: Callable[[], object], *, only: Collection[str] | None = None) -> None:
        """Queues one immutable object for every live destination, or those of the names in ``only``.

        Arguments:
            key: the object's name, which its content decides.
            data: its bytes; a reference is kept until the last destination is done with it.
            size: its length in bytes.
            on_done: called once in any case, also if this raises: when no destination needs ``data`` any more, acknowledged or not.
            only: names; those that failed or are unknown are passed over.

        Raises:
            TooFewCopies: fewer than ``needed`` destinations are alive.
        """
        targets = [cursor for name, cursor in self._cursors.items() if name not in self._failed and (only is None or name in only)]
        if not targets or self._too_few() or self._broken is not None:
            on_done()
            self._check()
            return
        item = _Item(key, data, size, on_done, len(targets))
        self._in_flight += 1
        for cursor in targets:
            cursor.queue.append(item)
            cursor.queued += size
            cursor.ready.release()

    def fail(self, name: str, error: BaseException) -> None:
        """Counts a destination as failed for a reason that lies outside its stream of objects: a fenced session, say."""
        self._fail(name, self._cursors[name], error)

    async def drain(self) -> None:
        """Waits until everything sent is acknowledged by, or dropped for, every destination.

        Raises:
            TooFewCopies: as soon as fewer than ``needed`` destinations are alive.
        """
        while True:
            self._check()
            if not self._in_flight:
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def _work(self, name: str, cursor: _Cursor) -> None:
        try:
            while name not in self._failed:
                await cursor.ready.acquire()
                await self._deliver(name, cursor, cursor.queue.popleft())
        except Exception as error:  # noqa: BLE001
            # A callback raised, which is a bug and no store's failure: everything stops, and whoever sends or drains next hears of it.
            self._broken = self._broken or error
            for other in self._cursors.values():
                self._stop(other)
                self._drop_queue(other)
            self._notify()

    async def _deliver(self, name: str, cursor: _Cursor, item: _Item) -> None:
        begun = time.perf_counter()
        try:
            assert item.data is not None
            try:
                created = await cursor.destination.create(item.key, item.data)
                if not created:
                    await _check_taken(cursor.destination, item.key, item.data)
            except Exception as error:  # noqa: BLE001 - whatever a store raises is the failure of this one store
                self._fail(name, cursor, error)
                return
            cursor.sent += item.size
            self._acknowledged[item.key] = self._acknowledged.get(item.key, 0) | cursor.bit
        finally:
            self._done(cursor, item)
        if self._on_result is not None:
            self._on_result(Delivery(name, item.key, item.size, created, time.perf_counter() - begun))

    async def _end(self) -> None:
        workers = [worker for cursor in self._cursors.values() for worker in cursor.workers]
        for worker in workers:
            worker.cancel()
        cancellation: asyncio.CancelledError | None = None
        while workers and any(not worker.done() for worker in workers):
            try:
                await asyncio.wait(workers)
            except asyncio.CancelledError as error:
                cancellation = error
        for cursor in self._cursors.values():
            self._drop_queue(cursor)
        if cancellation is not None:
            raise cancellation

    def _fail(self, name: str, cursor: _Cursor, error: BaseException) -> None:
        _let_go_of_locals(error)
        self._failed.setdefault(name, error)
        self._drop_queue(cursor)
        self._stop(cursor)
        self._notify()

    def _stop(self, cursor: _Cursor) -> None:
        current = asyncio.current_task()
        for worker in tuple(cursor.workers):
            if worker is not current:
                worker.cancel()

    def _drop_queue(self, cursor: _Cursor) -> None:
        while cursor.queue:
            self._done(cursor, cursor.queue.popleft())

    def _done(self, cursor: _Cursor, item: _Item) -> None:
        cursor.queued -= item.size
        item.cursors -= 1
        if not item.cursors:
            item.data = None
            self._in_flight -= 1
            item.on_done()
            if not self._in_flight:
                self._notify()

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _too_few(self) -> bool:
        return len(self._cursors) - len(self._failed) < self._needed

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._too_few():
            raise TooFewCopies(self._needed, self._failed)


async def _check_taken(destination: Destination, key: str, data: Buffer) -> None:
    """``ObjectDamaged`` unless what is there is this object: an attempt that failed may have left half of it at a store that should not."""
    with memoryview(data).cast("B") as view:
        _, size = await destination.read_tail(key, 0)
        good = size == view.nbytes
        scratch = bytearray(min(_COMPARED, view.nbytes))
        at = 0
        while good and at < size:
            length = min(len(scratch), size - at)
            await destination.read_into(key, at, memoryview(scratch)[:length])
            good = scratch[:length] == view[at : at + length]
            at += length
    if not good:
        raise ObjectDamaged(f"{key} is taken there by other bytes than its name says", destination.name)


def _let_go_of_locals(error: BaseException) -> None:
    """The error is kept; the frames it passed through must not keep a pack's buffer with it."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
