"""Which replica to read from: pure decisions over a frozen look at what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LOOKED_AHEAD = 64
"""Extents; whoever would not be given one of so many is not worth waiting for."""

_WORST = 0.9


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What is known of a destination as a place to read from.

    Attributes:
        first_byte: seconds until the first byte comes, or None if never measured.
        goodput: bytes per second from then on, or None if never measured.
        queued: bytes asked for and not come yet.
        failed: it failed lately, and is asked only if no other can be.
        errors: the share (0 to 1) of what was asked of it lately that came to nothing.
        running, slots: extents that are read there now, and how many may be.
        stale: it was measured so long ago that it should be tried again.
    """

    name: str
    first_byte: float | None = None
    goodput: float | None = None
    queued: int = 0
    failed: bool = False
    errors: float = 0.0
    running: int = 0
    slots: int = 1
    stale: bool = False

    @property
    def measured(self) -> bool:
        """Whether a finish can be predicted."""
        return self.goodput is not None

    @property
    def untried(self) -> bool:
        """Whether the next read should go there, to measure it: never measured or not for long, and nothing asked of it now."""
        return (self.stale or self.goodput is None) and not self.queued

    def predicted(self, size: int) -> float:
        """Seconds until ``size`` more bytes would be here: first byte, then all that is queued, and again for what comes to nothing.
        Infinite if never measured.
        """
        return self.after(self.queued + size)

    def after(self, queued: int) -> float:
        """Seconds until so many bytes would have come, the last ones included."""
        if self.goodput is None:
            return float("inf")
        return ((self.first_byte or 0.0) + queued / self.goodput) / (1.0 - min(self.errors, _WORST))


def choose(candidates: Sequence[ReplicaState], size: int) -> str:
    """The name of the replica to ask for ``size`` bytes.

    One never measured comes first while nothing is asked of it, so that each is tried, with one read at a time. Then the earliest predicted
    finish; then the unmeasured that are being tried; last, in the same order, those that failed. Ties go to the least queued, then to the order given.

    Raises:
        ValueError: there is no candidate.
    """
    if not candidates:
        raise ValueError("no replica to choose from")

    def rank(state: ReplicaState) -> tuple[bool, int, float, int]:
        kind = 0 if state.untried else 1 if state.measured else 2
        return state.failed, kind, state.predicted(size), state.queued

    return min(candidates, key=rank).name


@dataclass(frozen=True, slots=True)
class Wanted:
    """An extent that waits for a replica.

    Attributes:
        size: in bytes.
        ranks: the names that may be asked; those of a higher rank only where all of the lower ones failed lately.
    """

    size: int
    ranks: Mapping[str, int]

    def candidates(self, states: Sequence[ReplicaState]) -> list[ReplicaState]:
        """Those that come into question: of the best rank among those that work, else of the best among those that failed."""
        left = [state for state in states if state.name in self.ranks]
        if not left:
            return []
        best = min((state.failed, self.ranks[state.name]) for state in left)
        return [state for state in left if (state.failed, self.ranks[state.name]) == best]


def assign(states: Sequence[ReplicaState], waiting: Sequence[Wanted], coming: int = 0) -> list[tuple[int, str]]:
    """Which of the ``waiting`` extents to begin now, and where: (number, name) pairs, none twice.

    As if all that waits, and the ``coming`` bytes after it, were given out one by one to whoever would finish it first, queues included (list
    scheduling by earliest completion time: Ibarra and Kim, JACM 24(2), 1977). A replica with a free slot begins what it would be given; one that
    would get nothing, because the others would be done with everything before it, stays idle. Who is untried gets one extent in any case.
    """
    known = {state.name: state for state in states}
    queued = {state.name: state.queued for state in states}
    free = {state.name: state.slots - state.running for state in states}
    given = dict.fromkeys(known, 0)

    def finish(name: str, size: int) -> tuple[int, float, int]:
        state = known[name]
        kind = 0 if state.untried and not given[name] else 1 if state.measured else 2
        return kind, state.after(queued[name] + size), queued[name]

    seen = list(waiting[:_LOOKED_AHEAD])
    if seen:
        typical = max(1, sum(item.size for item in seen) // len(seen))
        seen += [Wanted(typical, seen[-1].ranks)] * min(_LOOKED_AHEAD - len(seen), coming // typical)
    for item in seen:
        names = [state.name for state in item.candidates(states)]
        if names:
            name = min(names, key=lambda name: finish(name, item.size))
            queued[name] += item.size
            given[name] += 1
    wishes = {name: min(given[name], free[name]) for name in known}
    queued = {state.name: state.queued for state in states}
    given = dict.fromkeys(known, 0)
    begun: list[tuple[int, str]] = []
    for number, item in enumerate(waiting[:_LOOKED_AHEAD]):
        names = [state.name for state in item.candidates(states) if wishes[state.name] > 0]
        if names:
            name = min(names, key=lambda name: finish(name, item.size))
            queued[name] += item.size
            given[name] += 1
            wishes[name] -= 1
            begun.append((number, name))
    return begun
