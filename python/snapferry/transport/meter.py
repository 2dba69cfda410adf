"""Measures what each destination delivers while it is read from, for the choice of replicas.

Goodput is the delivery rate of TCP BBR (draft-cheng-iccrg-delivery-rate-estimation, section 2): all bytes that came from a destination while a read
was under way, over the time it took. So reads side by side do not each look slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from snapferry.destination.contract import Destination
from snapferry.errors import ObjectDamaged, ObjectNotFound
from snapferry.transport.replicas import ReplicaState, choose
from snapferry.transport.wrapper import Wrapper

WEIGHT = 0.25
"""Of a new measurement in the moving averages."""

SMALL = 64 << 10
"""Reads up to so many bytes measure the first byte, longer ones the goodput."""

_REST_FIRST, _REST_LONGEST = 1.0, 60.0
_SHORTEST = 1e-6


@dataclass(slots=True, eq=False)
class Reading:
    """One read under way; ``size`` is set to what came where it was not known before."""

    size: int


@dataclass(slots=True, eq=False)
class Meter:
    """What one destination delivers. For one event loop.

    Attributes:
        first_byte, goodput: moving averages in seconds and bytes per second; None until measured. The catalog may set what it remembers.
        queued: bytes asked for and not come yet. delivered: bytes that came.
        errors: in a row; missing and damaged objects do not count, they say something of the object.
    """

    name: str
    clock: Callable[[], float] = time.perf_counter
    first_byte: float | None = None
    goodput: float | None = None
    queued: int = 0
    delivered: int = 0
    errors: int = 0
    _rests_until: float = field(default=float("-inf"), repr=False)

    def state(self) -> ReplicaState:
        """A frozen look. It counts as failed for a while after an error, longer after each in a row."""
        return ReplicaState(self.name, self.first_byte, self.goodput, self.queued, self.errors > 0 and self.clock() < self._rests_until)

    @contextmanager
    def reading(self, size: int) -> Iterator[Reading]:
        """Measures the block, which reads ``size`` bytes, or says how many it read. One that raises is not measured, but its error counted."""
        begun, before = self.clock(), self.delivered
        reading = Reading(size)
        self.queued += size
        try:
            yield reading
        except (ObjectNotFound, ObjectDamaged):
            raise
        except Exception:
            self.fail()
            raise
        else:
            self.delivered += reading.size
            self._succeed(reading.size, self.clock() - begun, self.delivered - before)
        finally:
            self.queued -= size

    def fail(self) -> None:
        """Counts an error."""
        self.errors += 1
        self._rests_until = self.clock() + min(_REST_LONGEST, _REST_FIRST * 2.0 ** min(self.errors - 1, 10))

    def _succeed(self, size: int, seconds: float, came: int) -> None:
        self.errors = 0
        if size <= SMALL:
            self.first_byte = _averaged(self.first_byte, seconds)
            return
        # The first byte came no later than the last.
        self.first_byte = min(seconds, self.first_byte or 0.0)
        self.goodput = _averaged(self.goodput, came / max(seconds - self.first_byte, _SHORTEST))


def _averaged(average: float | None, value: float) -> float:
    return value if average is None else average + WEIGHT * (value - average)


class Metered(Wrapper):
    """A destination whose reads feed ``meter``."""

    def __init__(self, inner: Destination, meter: Meter) -> None:
        super().__init__(inner)
        self.meter = meter

    async def read(self, key: str, limit: int) -> bytes:
        """See ``Destination.read``."""
        with self.meter.reading(0) as reading:
            data = await self.inner.read(key, limit)
            reading.size = len(data)
            return data

    async def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """See ``Destination.read_into``."""
        with self.meter.reading(buffer.nbytes):
            await self.inner.read_into(key, offset, buffer)

    async def read_tail(self, key: str, length: int) -> tuple[bytes, int]:
        """See ``Destination.read_tail``."""
        with self.meter.reading(length) as reading:
            tail, size = await self.inner.read_tail(key, length)
            reading.size = len(tail)
            return tail, size


class ReplicaBoard:
    """The meters of several destinations."""

    def __init__(self, names: Iterable[str], clock: Callable[[], float] = time.perf_counter) -> None:
        self.meters = {name: Meter(name, clock) for name in names}

    def metered(self, destination: Destination) -> Destination:
        """``destination``, whose reads are measured here."""
        return Metered(destination, self.meters.setdefault(destination.name, Meter(destination.name)))

    def states(self, names: Iterable[str]) -> tuple[ReplicaState, ...]:
        """A frozen look at the destinations of these names."""
        return tuple(self.meters[name].state() for name in names)

    def choose(self, names: Iterable[str], size: int) -> str:
        """Which of these to ask for ``size`` bytes now; ``ValueError`` if there is none."""
        return choose(self.states(names), size)
