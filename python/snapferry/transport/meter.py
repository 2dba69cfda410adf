"""Measures what each destination delivers while it is read from, for the choice of replicas.

Goodput is bytes that came, over the time in which any were due: while a read was under way and past its first byte. So reads side by side do not
each look slow, and neither a wait for work nor the latency of a lone read counts as slowness. Both sums are of the last few reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from snapferry.destination.contract import Destination
from snapferry.errors import DestinationError, ObjectDamaged, ObjectNotFound
from snapferry.transport.breaker import Breaker
from snapferry.transport.hedging import Lateness, lateness
from snapferry.transport.pace import Pace
from snapferry.transport.replicas import ReplicaState
from snapferry.transport.tail import Tail
from snapferry.transport.wrapper import Wrapper

SMALL = 64 << 10
"""Reads up to so many bytes measure the first byte, longer ones the goodput."""

LATE_QUANTILE = 0.95
_WEIGHT = 0.25
_READS = 6
"""As many of the latest reads as these, or twice those under way, make the goodput."""

_REMEMBERED = 32 << 20
"""Bytes that a goodput of an earlier run counts for at most."""

_STALE = 60.0
"""Seconds after which a replica that was not read from is tried again."""

_HALF_LIFE, _FRESH = 86400.0, 3600.0
"""Seconds: what an earlier run measured loses half of its weight in the first; within the second it need not be tried before it is believed."""

_SHORTEST = 1e-6
_FIRST_REST, _LONGEST_REST, _FORGIVEN_BY = 1.0, 60.0, 16
_AT_ONCE, _MOST_AT_ONCE, _WORTH = 2, 32, 0.1

_Range: TypeAlias = tuple[str, int]


@dataclass(slots=True, eq=False)
class Reading:
    """One read under way.

    Attributes:
        size: bytes asked for; 0 where nobody knows. came: bytes that came, which may be set to another number.
        peak: the most bytes that were queued, its own included, while it was: what may have come before it.
        probe: it is the one that tries whether a destination is back.
    """

    size: int
    came: int
    begun: float
    peak: int
    probe: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """What is worth remembering of a replica, with the meaning it has in ``Meter``; ``tail`` is the quantile ``LATE_QUANTILE``."""

    first_byte: float
    goodput: float
    tail: float | None = None
    errors: float = 0.0


@dataclass(slots=True, eq=False)
class Meter:
    """What one destination delivers. For one event loop.

    Attributes:
        first_byte: in seconds, a moving average; None until measured.
        queued: bytes asked for and not come yet. delivered: bytes that came.
        running: extents that hold a slot. counted: reads that made the goodput what it is.
        stuck: reads that were cancelled long ago and have not ended: until they have, it counts as failed.
        errors: the share of reads lately that came to nothing: failed, hung, missing or damaged.
        breaker: missing and damaged objects do not count there; they say something of the object, not of the place.
    """

    name: str
    clock: Callable[[], float] = time.perf_counter
    first_byte: float | None = None
    queued: int = 0
    delivered: int = 0
    running: int = 0
    counted: int = 0
    stuck: int = 0
    errors: float = 0.0
    breaker: Breaker = field(default_factory=lambda: Breaker(_FIRST_REST, _LONGEST_REST, _FORGIVEN_BY))
    pace: Pace = field(default_factory=lambda: Pace(_AT_ONCE, _MOST_AT_ONCE, _WORTH))
    tail: Tail = field(default_factory=Tail)
    _bytes: float = field(default=0.0, repr=False)
    _seconds: float = field(default=0.0, repr=False)
    _due: float = field(default=0.0, repr=False)
    _measured: float | None = field(default=None, repr=False)
    _looked: float = field(default=float("-inf"), repr=False)
    _open: list[Reading] = field(default_factory=list, repr=False)
    _ranges: dict[_Range, Reading] = field(default_factory=dict, repr=False)

    @property
    def goodput(self) -> float | None:
        """Bytes per second from the first byte on; None until measured."""
        return self._bytes / self._seconds if self._bytes else None

    def state(self) -> ReplicaState:
        """A frozen look. Failed while its breaker is open; one slot while never measured, or while it is tried again."""
        now = self.clock()
        phase = self.breaker.state(now)
        return ReplicaState(
            self.name,
            self.first_byte,
            self.goodput,
            self.queued,
            phase == "open" or self.stuck > 0,
            self.errors,
            self.running,
            self.pace.limit if phase == "closed" and self.goodput is not None else 1,
            self._measured is None or now - self._measured > _STALE,
        )

    def remember(self, measured: Measured, age: float) -> None:
        """What an earlier run measured ``age`` seconds ago, if this one has not yet. It counts for the less beside new measurements the older it is."""
        if self.goodput is None and measured.goodput > 0:
            trust = 0.5 ** (age / _HALF_LIFE)
            self.first_byte = measured.first_byte if self.first_byte is None else self.first_byte
            self._bytes = max(1.0, _REMEMBERED * trust)
            self._seconds = self._bytes / measured.goodput
            self.errors = max(self.errors, measured.errors * trust)
            self.tail = Tail(measured.tail)
            self._measured = self.clock() - max(0.0, age - _FRESH)

    def summary(self) -> Measured | None:
        """What is worth remembering; None if nothing of it was measured in this run."""
        if self.goodput is None or not self.counted:
            return None
        return Measured(self.first_byte or 0.0, self.goodput, self.tail.quantile(LATE_QUANTILE), self.errors)

    @contextmanager
    def reading(self, size: int, where: _Range | None = None) -> Iterator[Reading]:
        """Measures the block, which reads ``size`` bytes, or says how many it read. One that raises is not measured, but its error counted."""
        self._look()
        self.queued += size
        reading = Reading(size, size, self.clock(), self.queued, self.breaker.failing_since is not None)
        self.breaker.begin(reading.begun)
        for other in self._open:
            other.peak = max(other.peak, self.queued)
        self._open.append(reading)
        if where is not None:
            self._ranges[where] = reading
        try:
            yield reading
        except (ObjectNotFound, ObjectDamaged):
            self.breaker.succeeded(reading.begun)
            self.distrust()
            raise
        except Exception as error:
            asked = (error.retry_after or 0.0) if isinstance(error, DestinationError) else 0.0
            self._fail(reading, asked)
            raise
        except BaseException:
            if reading.probe:
                self.breaker.given_up()
            self._give_up(reading)
            raise
        else:
            self._succeed(reading, alone=len(self._open) == 1)
            if where is not None:
                self.pace.completed(reading.came, self.clock(), busy=self.running >= self.pace.limit)
        finally:
            self._look()
            self._open.remove(reading)
            if where is not None and self._ranges.get(where) is reading:
                del self._ranges[where]
            self.queued -= size

    def distrust(self) -> None:
        """A read came to nothing, as it turns out perhaps only after it ended."""
        self.errors += _WEIGHT / 2 * (1.0 - self.errors)

    def since(self, where: _Range) -> float | None:
        """Seconds since the read of that range began; None if none is under way: it waits for its turn, at a rate limit say."""
        reading = self._ranges.get(where)
        return None if reading is None else self.clock() - reading.begun

    def lateness(self, where: _Range, elsewhere: float | None = None) -> Lateness | None:
        """When the read of that range is late, if it takes ``elsewhere`` seconds somewhere else; None if none is under way."""
        reading = self._ranges.get(where)
        if reading is None:
            return None
        tail = self.tail.quantile(LATE_QUANTILE)
        return lateness(reading.size, self._expected(reading), tail, first_byte=self.first_byte, elsewhere=elsewhere)

    def left(self, where: _Range) -> float:
        """Seconds until the read of that range is predicted to end; infinite if nothing is known of it."""
        reading = self._ranges.get(where)
        expected = None if reading is None else self._expected(reading)
        return float("inf") if reading is None or expected is None else max(0.0, expected - (self.clock() - reading.begun))

    def stalled(self, where: _Range) -> None:
        """The read of that range is counted as hanging, whatever becomes of it."""
        reading = self._ranges.get(where)
        if reading is not None:
            self._fail(reading)

    def _fail(self, reading: Reading, at_least: float = 0.0) -> None:
        if self.breaker.failing_since is None or reading.probe:
            self.pace.troubled()  # Once for all that fail together.
        self.breaker.failed(self.clock(), reading.begun, at_least)
        self.distrust()

    def _expected(self, reading: Reading) -> float | None:
        return None if self.goodput is None else (self.first_byte or 0.0) + reading.peak / self.goodput

    def _ratio(self, reading: Reading) -> float:
        expected = self._expected(reading)
        return 1.0 if not expected else (self.clock() - reading.begun) / expected

    def _give_up(self, reading: Reading) -> None:
        """Of one that was cancelled only the time is known; it says something if it is long."""
        ratio = self._ratio(reading)
        if ratio > 1.0 and reading.size > SMALL:
            self.tail.add(ratio)

    def _look(self) -> None:
        """Counts the time since the last look in which bytes were due."""
        now = self.clock()
        oldest = next((reading for reading in self._open if reading.size > SMALL), None)
        if oldest is not None:
            self._due += max(0.0, now - max(self._looked, oldest.begun + (self.first_byte or 0.0)))
        self._looked = now

    def _succeed(self, reading: Reading, *, alone: bool) -> None:
        self._look()
        seconds = self._looked - reading.begun
        self.breaker.succeeded(reading.begun)
        self.delivered += reading.came
        self.errors *= 1.0 - _WEIGHT / 2
        if reading.came <= SMALL:
            # Behind others it says how long those take.
            if self.first_byte is None or alone:
                self.first_byte = seconds if self.first_byte is None else self.first_byte + _WEIGHT * (seconds - self.first_byte)
            else:
                self.first_byte = min(self.first_byte, seconds)
            return
        if reading.size <= SMALL:  # Nobody knew that it would be long.
            if not alone:
                return
            self._due += max(0.0, seconds - (self.first_byte or 0.0))
        else:
            self.tail.add(self._ratio(reading))
        # The first byte came no later than the last.
        self.first_byte = min(seconds, self.first_byte or 0.0)
        self._measured = self._looked
        self._count(reading.came)

    def _count(self, size: int) -> None:
        self.counted += 1
        self._bytes += size
        self._seconds += max(self._due, _SHORTEST)
        self._due = 0.0
        most = size * max(_READS, 2 * len(self._open))
        if self._bytes > most:
            self._seconds *= most / self._bytes
            self._bytes = most


class Metered(Wrapper):
    """A destination whose reads feed ``meter``."""

    def __init__(self, inner: Destination, meter: Meter) -> None:
        super().__init__(inner)
        self.meter = meter

    async def read(self, key: str, limit: int) -> bytes:
        """See ``Destination.read``."""
        with self.meter.reading(0) as reading:
            data = await self.inner.read(key, limit)
            reading.came = len(data)
            return data

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """See ``Destination.read_into``."""
        with self.meter.reading(buffer.nbytes, (key, offset)):
            await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """See ``Destination.read_tail``."""
        with self.meter.reading(length) as reading:
            tail, size = await self.inner.read_tail(key, length)
            reading.came = len(tail)
            return tail, size
