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
    """

    first_rest: float = FIRST_REST
    longest_rest: float = LONGEST_REST
    failing_since: float | None = None
    retry_at: float = 0.0
    _opened: float = 0.0
    _failures: int = 0
    _probing: bool = False

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

    def succeeded(self) -> None:
        """A call ended well: everything is let through again."""
        self.failing_since, self._failures, self._probing = None, 0, False

    def failed(self, now: float, begun: float) -> None:
        """A call that was begun at ``begun`` failed. Those that were under way when the breaker opened say nothing new."""
        if self.failing_since is not None and begun < self._opened:
            return
        self._failures += 1
        self._opened, self._probing = now, False
        self.failing_since = now if self.failing_since is None else self.failing_since
        self.retry_at = now + min(self.longest_rest, self.first_rest * 2.0 ** min(self._failures - 1, 10))

    def given_up(self) -> None:
        """The probe was cancelled: it says nothing, and another may be made."""
        self._probing = False
