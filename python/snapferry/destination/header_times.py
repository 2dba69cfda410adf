"""Times in the heads of HTTP answers: how long a server wants to be left alone, and what its clock says. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_WAIT = 3600.0


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds of a ``Retry-After`` header, which is a number or a date (RFC 9110, 10.2.3), an hour at most; None where there is none."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return min(float(text), _LONGEST_WAIT)
    when = _date(text)
    return None if when is None else min(max(0.0, (when - (now or datetime.now(UTC))).total_seconds()), _LONGEST_WAIT)


def clock_skew(headers: Mapping[str, str], now: datetime | None = None) -> float:
    """By how many seconds this machine's clock is ahead of the server's, by the answer's date; 0 where it does not say."""
    theirs = _date(headers.get("date", ""))
    return 0.0 if theirs is None else ((now or datetime.now(UTC)) - theirs).total_seconds()


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
