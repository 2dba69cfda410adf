"""Whether a destination gets on with what it is sent, or is stuck: a pure decision, fed with what was seen. The caller gives the time, in seconds.

A slow one needs long for each object, and is no other than one that hangs until the object is there. So what is on its way is taken back early at
first, and each time that this did not help later; and what objects did take is what they may take.
"""

from __future__ import annotations

from dataclasses import dataclass

STALLED = 10.0
"""Seconds for which anybody may be quiet."""

_TIMES = 2.0
_FADES = 0.9
_MOST_DOUBLINGS = 10


@dataclass(slots=True)
class Headway:
    """Of one destination. ``quiet_since``: the last acknowledgement, or when there was something again to acknowledge."""

    quiet_since: float
    _moved: float = 0.0
    _longest: float = 0.0
    _interrupted: int = 0

    def wanted(self, now: float) -> None:
        """There is something for it, after there was nothing."""
        self.quiet_since = now

    def begun(self, now: float) -> None:
        """Something is on its way, after nothing was."""
        self._moved = now

    def delivered(self, now: float, seconds: float) -> None:
        """It has acknowledged something that took so long."""
        self.quiet_since = self._moved = now
        self._longest, self._interrupted = max(seconds, _FADES * self._longest), 0

    def interrupted(self, now: float) -> None:
        """What was on its way was taken back."""
        self._moved = now
        self._interrupted = min(self._interrupted + 1, _MOST_DOUBLINGS)

    def is_stalled(self, now: float) -> bool:
        """Whether what is on its way has taken far too long, and should be taken back."""
        return now - self._moved > max(STALLED * 2.0**self._interrupted, _TIMES * self._longest)

    def is_stuck(self, now: float) -> bool:
        """Whether it has acknowledged nothing for far too long, whatever was tried and taken back meanwhile."""
        return now - self.quiet_since > max(STALLED, _TIMES * self._longest)
