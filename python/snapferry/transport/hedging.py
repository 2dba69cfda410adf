"""When a read is late enough to be asked of another replica too, and how many bytes that may cost. Arithmetic only.

Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013: a copy of a request that is later than nearly all others cuts the tail at a few
percent more load. What "late" means is each replica's own: its prediction, and how its reads usually compare with it.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.05
"""Of all bytes, what may be asked for twice."""

_USUAL, _LEAST, _MOST = 2.0, 1.5, 3.0
_SLACK = 0.03
"""Seconds that a busy machine may be late by itself."""

_STALLED, _STALLED_SLACK = 5.0, 0.25
_UNKNOWN, _UNKNOWN_RATE = 0.5, 16 << 20
"""Seconds, and bytes a second, that are given to one of which nothing is known."""

_ELSEWHERE, _ELSEWHERE_SLACK = 4.0, 0.1

_SMALL, _FREE = 1 << 20, 4 << 20


@dataclass(frozen=True, slots=True)
class Lateness:
    """When something is done about a read, in seconds since it began.

    Attributes:
        late: another replica is asked too, if the bytes for that are left.
        stalled: another replica is asked in any case, and this one counts as failing.
    """

    late: float
    stalled: float


def lateness(
    size: int, expected: float | None, tail: float | None, *, first_byte: float | None = None, elsewhere: float | None = None
) -> Lateness:
    """Of a read of ``size`` bytes.

    Arguments:
        expected: the seconds it should take; None where the replica's goodput was never measured.
        tail: how many times what was expected nearly all of its reads take at most; None if that is not known.
        first_byte: the seconds until anything comes, if that was measured.
        elsewhere: the seconds the read would take at another replica; None if that is not known.
    """
    if expected is not None:
        late = expected * min(_MOST, max(_LEAST, _USUAL if tail is None else tail)) + _SLACK
        return Lateness(late, max(late, expected * _STALLED + _STALLED_SLACK))
    guess = (_UNKNOWN if first_byte is None else first_byte) + size / _UNKNOWN_RATE
    if elsewhere is None:
        return Lateness(guess * _USUAL + _SLACK, guess * _STALLED + _STALLED_SLACK)
    late = min(guess * _USUAL + _SLACK, elsewhere * _ELSEWHERE + _ELSEWHERE_SLACK)
    return Lateness(late, guess * _USUAL + _STALLED_SLACK)


class HedgeBudget:
    """The bytes that one operation may ask for twice: a share of all it reads, and for small reads a little from the start.

    Attributes:
        asked: bytes that were asked for once. hedged: bytes of copies. count: of copies.
    """

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self.asked = 0
        self.hedged = 0
        self.count = 0

    def take(self, size: int, coming: int) -> bool:
        """Pays for a copy of ``size`` bytes, if that is left; ``coming`` bytes will be asked for later."""
        most = self._share * (self.asked + coming)
        if self.hedged + size > (max(most, _FREE) if size <= _SMALL else most):
            return False
        self.spend(size)
        return True

    def spend(self, size: int) -> None:
        """A copy that is made whatever it costs."""
        self.hedged += size
        self.count += 1
