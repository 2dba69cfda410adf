"""A circuit breaker: a store that fails is left alone for a while, then asked once, and only if that succeeds asked as before.

Pure: the caller gives the time, in seconds of any clock that only goes forward. (Nygard, "Release It!", 2007, "Circuit Breaker".)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FIRST_REST, LONGEST_REST = 0.5, 15.0


@dataclass(slots=True)
class Breaker:
    """Closed at first: everything is let through.

    Attributes:
        failing_since: when the first failure came after the last success; None while all is well.
        retry_at: when one call may be tried again.
        forgiven_by: rests get longer with each failure. One success makes the next one as short as the first; or, if this is not 0, so many
            in a row take back one doubling: then what fails every second time is soon left alone for long.
    """

    first_rest: float = FIRST_REST
    longest_rest: float = LONGEST_REST
    forgiven_by: int = 0
    failing_since: float | None = None
    retry_at: float = 0.0
    _opened: float = 0.0
    _failures: int = 0
    _probing: bool = False
    _good: int = 0

    def state(self, now: float) -> Literal["closed", "open", "half-open"]:
        """``half-open``: one call may be made, to see."""
        if self.failing_since is None:
            return "closed"
        return "open" if now < self.retry_at or self._probing else "half-open"

    def allows(self, now: float) -> bool:
        """Whether a call may be made now; ``begin`` says that it is."""
        return self.state(now) != "open"

    def begin(self, now: float) -> None:
        """A call is made. Where the breaker is half open it is the probe, and no other is let through until it has ended."""
        self._probing = self.failing_since is not None and now >= self.retry_at

    def succeeded(self, begun: float | None = None) -> None:
        """A call ended well: everything is let through again. One that was begun before the breaker opened says nothing, if that is told."""
        if begun is not None and self.failing_since is not None and begun < self._opened:
            return
        self.failing_since, self._probing = None, False
        if not self.forgiven_by:
            self._failures = 0
        elif self._failures:
            self._good += 1
            if self._good >= self.forgiven_by:
                self._failures, self._good = self._failures - 1, 0

    def failed(self, now: float, begun: float, at_least: float = 0.0) -> None:
        """A call that was begun at ``begun`` failed. Those that were under way when the breaker opened say nothing new.

        Arguments:
            at_least: seconds of rest that were asked for.
        """
        if self.failing_since is not None and begun < self._opened:
            return
        self._failures += 1
        self._opened, self._probing, self._good = now, False, 0
        self.failing_since = now if self.failing_since is None else self.failing_since
        rest = min(self.longest_rest, self.first_rest * 2.0 ** min(self._failures - 1, 10))
        self.retry_at = now + max(rest, at_least)

    def given_up(self) -> None:
        """The probe was cancelled: it says nothing, and another may be made."""
        self._probing = False
