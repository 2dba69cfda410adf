"""How many operations at once pay at one store: a pure decision, fed with what was measured.

A hill is climbed: a few more are tried, and kept while more bytes a second come of it; fewer are kept where little is lost. Trouble (an error,
a store that asks to be left alone) halves it, as a congestion window (RFC 5681). After a try that brought nothing the next one waits longer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WORTH = 0.3

_SECONDS = 0.5
_LONGEST_REST = 32


@dataclass(slots=True)
class Pace:
    """Operations at once, between 1 and ``most``; begins with ``limit``. The caller gives the time, in seconds.

    ``worth``: of what a step would bring if the store had no bounds, so much has to come of it; and so much may be lost by a step back.
    """

    limit: int
    most: int
    worth: float = WORTH
    _before: int = 0
    _base: float | None = None
    _down: bool = False
    _rest: int = 0
    _longer: int = 1
    _begun: float | None = field(default=None)
    _settling: int = 0
    _bytes: int = 0
    _count: int = 0

    def completed(self, size: int, now: float, *, busy: bool) -> None:
        """``size`` bytes were delivered. What is measured counts only while the store was ``busy``: as many under way as may be, and more waiting."""
        if not busy:
            self._begun = None
            return
        if self._settling:
            # Begun under the limit before.
            self._settling -= 1
            return
        if self._begun is None:
            self._begun, self._bytes, self._count = now, 0, 0
            return
        self._bytes += size
        self._count += 1
        seconds = now - self._begun
        if seconds >= _SECONDS and self._count >= 3 * self.limit:
            self._begun, self._bytes, self._count, moved = now, 0, 0, self._bytes
            before = self.limit
            self._decide(moved / seconds)
            if self.limit != before:
                self._begun, self._settling = None, before

    def troubled(self) -> None:
        """The store failed, or asked to be left alone."""
        self.limit = max(1, self.limit // 2)
        self._before, self._base, self._begun = 0, None, None
        self._rest = self._longer = min(2 * self._longer, _LONGEST_REST)

    def _decide(self, rate: float) -> None:
        if self._before:
            self._judge(rate)
            return
        self._base = rate if self._base is None else (self._base + rate) / 2
        if self._rest:
            self._rest -= 1
            return
        width = max(1, self.limit // 2)
        step = max(1, self.limit - width) if self._down else min(self.most, self.limit + width)
        if step != self.limit:
            self._before, self.limit = self.limit, step
        else:
            self._down = not self._down

    def _judge(self, rate: float) -> None:
        """What a step brought: it stays, or is taken back and the other way is tried after a rest."""
        assert self._base is not None
        better = rate >= self._base * (1 + self.worth * (self.limit / self._before - 1))
        if better:
            self._base, self._longer = rate, 1
        else:
            self.limit = self._before
            self._down = not self._down
            self._rest = self._longer
            self._longer = min(2 * self._longer, _LONGEST_REST)
        self._before = 0
