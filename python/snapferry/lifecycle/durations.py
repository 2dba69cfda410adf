"""Spans of calendar time as people write them: ``1y5m7d2h`` is a year, five months, seven days and two hours, as in restic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from snapferry.errors import ConfigurationError

_PART = re.compile(r"([0-9]{1,6})([ymdh])")
_WHOLE = re.compile(r"([0-9]{1,6}[ymdh])+")
_FIELDS = {"y": "years", "m": "months", "d": "days", "h": "hours"}


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of years, months, days and hours; how long that is depends on where in the calendar it ends."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __bool__(self) -> bool:
        """Whether it is longer than nothing."""
        return any((self.years, self.months, self.days, self.hours))

    def __str__(self) -> str:
        """As it is written, largest unit first."""
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{number}{unit}" for number, unit in parts if number) or "0h"

    def before(self, time: datetime) -> datetime:
        """The moment this much before ``time``, in UTC; the earliest there is where the calendar does not reach back so far.

        A day that its month does not have runs over into the next: a month before March 31 is March 3, as Go's ``AddDate`` has it, on
        which restic's ``--keep-within`` rests.
        """
        time = time.astimezone(UTC)
        months = (time.year - self.years) * 12 + time.month - 1 - self.months
        try:
            first = time.replace(year=months // 12, month=months % 12 + 1, day=1)
            return first + timedelta(days=time.day - 1 - self.days, hours=-self.hours)
        except (ValueError, OverflowError):
            return datetime.min.replace(tzinfo=UTC)


def parse_duration(text: str, what: str = "duration") -> Duration:
    """The span that ``text`` means; ``ConfigurationError`` for anything but numbers with y, m, d or h, each at most once."""
    parts = _PART.findall(text) if _WHOLE.fullmatch(text) else []
    units = [unit for _, unit in parts]
    if not parts or len(set(units)) < len(units):
        raise ConfigurationError(f"{what}: {text!r} is not a span of time; write years, months, days and hours, as in 1y5m7d2h or 36h")
    return Duration(**{_FIELDS[unit]: int(number) for number, unit in parts})
